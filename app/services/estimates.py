"""What is loaded, and what a clip will take before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.engine.engine import Engine
from app.engine.memory import Estimate, MemoryManager, MemoryUsage
from app.errors import user_message
from app.services.video import video_request
from core.errors import StoppedError
from core.pipelines.text_to_video import encode_prompt

ANY_PROMPT = "a clip"  # stands for the prompt in an estimate as long as none is typed


@dataclass(frozen=True)
class LoadedModel:
    """Which weights are loaded, where, in which precision, and what they know."""

    name: str
    num_parameters: int
    dtype: str
    device: str
    domain: str


class Estimates:
    """Says what things take, as they would be done now.

    Args:
        engine: would run them.
        memory: would plan for them.
    """

    def __init__(self, engine: Engine, memory: MemoryManager) -> None:
        self.engine = engine
        self.memory = memory
        # sets the tokenizer up here, once: estimates read prompts while the engine's thread reads others,
        # which is safe as long as nobody changes how it is set up
        encode_prompt(engine.omni, ANY_PROMPT)

    def clip(self, prompt: Any, negative_prompt: Any, **form: Any) -> Estimate:
        """What a clip will take, or the sentence that making it would say.

        As long as there is no prompt, that of any short one.
        """
        try:
            if self.engine.trouble:
                raise StoppedError(self.engine.trouble)
            untyped = prompt is None or (isinstance(prompt, str) and not prompt.strip())
            typed = ANY_PROMPT if untyped else prompt
            return self.memory.estimate(video_request(self.engine.omni, typed, negative_prompt, **form))
        except Exception as error:
            return Estimate(user_message(error), False)

    def memory_usage(self) -> MemoryUsage:
        """What memory is taken and left now.

        Raises:
            StoppedError: the engine runs no jobs any more; says why.
        """
        if self.engine.trouble:
            raise StoppedError(self.engine.trouble)
        return self.memory.usage()

    def model(self) -> LoadedModel:
        """Name, size and place of the loaded weights, and what they know."""
        return loaded_model(self.engine.omni)


def loaded_model(omni: Any) -> LoadedModel:
    """What is loaded; 4-bit matrices hold two parameters in a byte, and both count."""
    dtype = str(omni.model.dtype).removeprefix("torch.")
    count = omni.model.num_parameters()
    return LoadedModel(omni.profile.name, count, dtype, omni.device.type, omni.profile.domain)
