"""People's own rows: good ones are read, bad ones are named and skipped, or stop a strict run."""

from __future__ import annotations

import codecs
import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import DataError, HaploOmniError
from core.processor import HaploOmniProcessor
from core.training.data.jsonl import LONGEST_LINE
from core.training.data.rows import check_row, read_rows
from tests import ROOT

BUNDLED = ROOT / "examples" / "checkpoints" / "haploomni-tiny"
ROWS = ROOT / "examples" / "own_data" / "rows.jsonl"
MEDIA = ROOT / "examples" / "media"


@pytest.fixture(scope="module")
def processor():
    return HaploOmniProcessor.from_pretrained(BUNDLED)


def write(folder: Path, *rows: object) -> Path:
    file = folder / "rows.jsonl"
    folder.mkdir(exist_ok=True)
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def conversation(*parts: object, answer: object = "A heart.", **more: object) -> dict:
    return {
        "messages": [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": answer}],
        **more,
    }


def said(words: str) -> dict:
    return {"type": "text", "text": words}


def ask(path: object, answer: str = "A heart.", **more: object) -> dict:
    return conversation({"type": "image", "path": path, **more}, said("What is it?"), answer=answer)


def watch(**more: object) -> dict:
    return conversation(
        {"type": "video", "path": "circle_left.mp4", **more}, said("What moves?"), answer="A circle."
    )


def with_media(folder: Path) -> Path:
    for name in ("heart.png", "circle_left.mp4"):
        (folder / name).write_bytes((MEDIA / name).read_bytes())
    return folder


def words(text: str, answer: str = "Yes.") -> dict:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}


GOOD = ask("heart.png")
CLIP = {"prompt": "x", "video": "circle_left.mp4"}
BAD = {
    # not a row at all
    "{not json": "not JSON",
    "[1, 2]": "one JSON object",
    "null": "this is None",
    "7": "this is 7",
    '"a"': "one JSON object",
    "[" * 100_000: "brackets are too deep",
    '{"a":' * 100_000: "brackets are too deep",
    json.dumps(GOOD) + json.dumps(GOOD): "not JSON",
    '{"prompt": "x", "image": "heart.png", "image": "heart.png"}': "'image' stands there more than once",
    # numbers and characters
    json.dumps(watch(start_s=float("nan"))): "NaN is no number",
    json.dumps(watch(end_s=float("inf"))): "Infinity is no number",
    json.dumps(watch(start_s=-float("inf"))): "-Infinity is no number",
    json.dumps(watch()).replace('"path"', '"start_s": 1e999, "path"'): "1e999 is too large",
    json.dumps(watch()).replace('"path"', f'"num_frames": {"9" * 5000}, "path"'): "is too large",
    json.dumps(watch(num_frames=10**200)): "no clip has so many",
    json.dumps(watch(start_s=10**200)): "a number of seconds from",
    json.dumps(words("who \ud83d")): "half a character",
    json.dumps(words("yes", "\udc00")): "half a character",
    json.dumps({"prompt": "\ud83d", "image": "heart.png"}): "half a character",
    json.dumps({"\ud83d": 1}): "half a character",
    # files
    json.dumps(ask("a" * 300 + ".png")): "there is no file",
    json.dumps(ask("heart\0.png")): "there is no file",
    json.dumps(ask("none.png")): "no file none.png",
    json.dumps(ask(".")): "there is no file",
    json.dumps(ask("../" * 3000)): "there is no file",
    json.dumps(ask("https://example.org/heart.png")): "is an address",
    json.dumps(ask("data:image/png;base64,AAAA")): "is an address",
    json.dumps(ask(None)): "needs a 'path'",
    json.dumps(ask(["heart.png"])): "needs a 'path'",
    json.dumps(ask("circle_left.mp4")): "circle_left.mp4",
    json.dumps({"prompt": "x", "image": 3}): "'image' must be the path",
    json.dumps({"prompt": "x", "image": "none.png"}): "no file none.png",
    # what a row needs
    "{}": "needs 'messages'",
    '{"messages": null}': "needs 'messages'",
    '{"prompt": null, "image": "heart.png"}': "unknown key 'image'",
    '{"prompt": "x"}': "needs a 'video' or an 'image'",
    '{"prompt": "x", "video": null}': "needs a 'video' or an 'image'",
    json.dumps({**CLIP, "image": "heart.png"}): "only one of 'video' and 'image'",
    json.dumps({**CLIP, **GOOD}): "both 'messages' and 'prompt'",
    '{"prompt": " ", "image": "heart.png"}': "'prompt' must be a text",
    '{"prompt": ["x"], "image": "heart.png"}': "'prompt' must be a text",
    json.dumps({"prompt": "very " * 300, "image": "heart.png"}): "more than 200",
    '{"messages": []}': "must be a list",
    '{"messages": {"role": "user"}}': "must be a list",
    '{"messages": [null]}': "needs a role",
    '{"messages": [{"role": "user", "content": null}]}': "must be a text or a list",
    '{"messages": [{"role": "user", "content": [null]}]}': "needs a type",
    '{"messages": [{"role": "user", "content": [{"type": "text", "text": null}]}]}': "'text' as a string",
    '{"messages": [{"role": "user", "content": "hi"}]}': "the last message must be the assistant's",
    '{"messages": [{"role": "assistant", "content": "hi"}]}': "that it answers",
    '{"messages": [{"role": "system", "content": "s"}, '
    '{"role": "assistant", "content": "hi"}]}': "that it answers",
    '{"messages": [{"role": "cook", "content": "x"}]}': "needs a role",
    '{"messages": [{"role": ["user"], "content": "x"}]}': "needs a role",
    json.dumps(ask("heart.png", "very " * 200)): "more than 200",
    json.dumps(ask("heart.png", " ")): "no words to learn",
    json.dumps(conversation(said("hi"), answer=[])): "no words to learn",
    json.dumps(
        conversation(said("hi"), answer=[{"type": "image", "path": "heart.png"}])
    ): "can only hold words",
    json.dumps(watch(num_frames="all")): "'num_frames' is 'all'",
    json.dumps(watch(num_frames=True)): "'num_frames' is True",
    json.dumps(watch(num_frames=0)): "0 frames cannot be sampled",
    json.dumps(watch(start_s="now")): "'start_s' is 'now'",
    json.dumps(watch(start_s=-1)): "'start_s' is -1",
    json.dumps(watch(start_s=0.5, end_s=True)): "'end_s' is True",
    json.dumps(watch(start_s=500)): "holds no frame",
}
# the forms of other trainers, each with what to write instead
OTHER_FORMATS = {
    json.dumps({**words("<image>What colour?"), "images": ["heart.png"]}): "'images'; show each file where",
    json.dumps({**words("What moves?"), "videos": ["circle_left.mp4"]}): "'videos'; show each file where",
    json.dumps({**words("hi"), "images": None}): "unknown key 'images'",
    json.dumps(
        {"id": 1, "image": "heart.png", "conversations": [{"from": "human", "value": "hi"}]}
    ): "unknown key",
    json.dumps({"conversations": [{"from": "human", "value": "hi"}]}): "'conversations'; write 'messages'",
    json.dumps({"messages": [{"from": "human", "value": "hi"}]}): "'from'; write 'role': user for human",
    json.dumps({"instruction": "say", "input": "", "output": "a"}): "'instruction'; write 'messages'",
    json.dumps({"text": "a"}): "'text'; write 'prompt' in a row to generate",
    json.dumps({**CLIP, "caption": "a"}): "'caption'; write 'prompt'",
    json.dumps({**GOOD, "id": 3}): "unknown key 'id'; it may have 'messages'",
    json.dumps({**CLIP, "seed": 3}): "unknown key 'seed'; it may have 'prompt', 'video', 'image'",
    json.dumps(
        conversation({"type": "image_url", "image_url": {"url": "heart.png"}}, said("a"))
    ): "'image_url'; write .*'?\"path\"",
    json.dumps(conversation({"type": "input_text", "text": "a"})): "'input_text'; write",
    json.dumps(conversation({"type": "audio", "path": "a.wav"})): "sound is not learned",
    json.dumps(
        conversation({"type": "image", "image": "heart.png"}, said("a"))
    ): "'image'; name a file with 'path'",
    json.dumps(
        conversation({"type": "image", "url": "heart.png"}, said("a"))
    ): "'url'; name a file with 'path'",
    json.dumps(ask("heart.png", min_pixels=4)): "'min_pixels'; the model's own sizes",
    json.dumps(watch(fps=2)): "'fps'; write 'num_frames'",
    json.dumps(ask("heart.png", num_frames=2)): "type 'image' has the unknown key 'num_frames'",
    json.dumps(
        conversation({"type": "text", "text": "a", "cache": 1})
    ): "type 'text' has the unknown key 'cache'",
    json.dumps(
        {"messages": [{"role": "user", "content": "a", "name": "b"}]}
    ): "a message has the unknown key 'name'",
    json.dumps(words("<image>\nWhat colour?")): 'letters <image>; put .*"image", "path"',
    json.dumps(words("<video> What moves?")): 'letters <video>; put .*"video", "path"',
    json.dumps(words("What?", "<IMAGE>")): "letters <IMAGE>",
    json.dumps(words("<|vision_start|><|image_pad|><|vision_end|>What?")): "letters <.vision_start.>",
    json.dumps(words("What is in <image_1>?")): "letters <image_1>",
    json.dumps(words("What is in [IMG]?")): r"letters \[IMG\]",
    json.dumps(words("What is in [image 2]?")): r"letters \[image 2\]",
    json.dumps(words("What is in <image 1>?")): "letters <image 1>",
    json.dumps(words("<image-1> What?")): "letters <image-1>",
    json.dumps(words("<start_of_image> What?")): "letters <start_of_image>",
    json.dumps(words("<fake_token_around_image> What?")): "letters <fake_token_around_image>",
    json.dumps(words("<im_start><im_patch><im_end> What?")): "letters <im_patch>",
    json.dumps(words("<audio> What is said?")): "letters <audio>; sound is not learned",
    json.dumps({"prompt": "<video> a cat", "image": "heart.png"}): "letters <video>",
    json.dumps(words("hi<|im_end|>")): "letters <.im_end.>; leave them out",
}


@pytest.mark.parametrize("row", [*BAD, *OTHER_FORMATS], ids=lambda row: row[:60])
def test_a_bad_row_is_named_and_skipped(row, processor, tmp_path, caplog):
    file = write(with_media(tmp_path), GOOD, "", row)
    with caplog.at_level(logging.WARNING):
        rows = read_rows([file], processor, longest=200)
    assert rows.bad == 1 and len(rows.conversations) == 1
    assert "line 3" in caplog.text and "1 bad rows skipped, 1 good rows kept" in caplog.text
    assert len(caplog.text) < 2000, "a sentence, not the row"
    with pytest.raises(DataError, match=f"line 3: .*{(BAD | OTHER_FORMATS)[row]}"):
        read_rows([file], processor, longest=200, strict=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("role", "content", "type", "text", "path", "start_s", "user", "image")),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_stands_anywhere_in_a_row_has_its_sentence(processor, data):
    """Any value in the place of any other: the row is taken or refused by name, and nothing else happens."""
    row = json.loads(json.dumps(data.draw(st.sampled_from((GOOD, CLIP, watch(start_s=0.1), words("hi"))))))
    place = row
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    try:
        made = check_row(json.dumps(row).encode(), MEDIA, processor, 200)
    except HaploOmniError as error:
        assert str(error).strip().endswith(".") and len(str(error)) < 600
    else:
        assert set(made) in ({"messages"}, {"prompt", "video"}, {"prompt", "image"})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.binary(max_size=40))
def test_whatever_bytes_a_line_holds_have_their_sentence(processor, line):
    with pytest.raises(HaploOmniError, match=r"\.$"):
        check_row(line, MEDIA, processor, 200)


def test_bytes_that_are_no_text_and_lines_without_end(processor, tmp_path, caplog):
    good = json.dumps(GOOD).encode()
    long = b'{"prompt": "' + b"a" * (2 * LONGEST_LINE) + b'", "image": "heart.png"}'
    lines = [good, b'{"prompt": "caf\xe9", "image": "heart.png"}', long, b"\x00" + good, good]
    file = with_media(tmp_path) / "rows.jsonl"
    file.write_bytes(b"\r\n".join(lines))
    with caplog.at_level(logging.WARNING):
        rows = read_rows([file], processor, 200)
    assert (len(rows.conversations), rows.bad) == (2, 3)
    assert (
        "line 2: byte 16 of the line is not UTF-8" in caplog.text
        and "line 3: the line is longer than 4 MiB" in caplog.text
    )


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_rows_are_read_as_editors_save_them(encoding, ends, processor, tmp_path):
    """Notepad and PowerShell write UTF-16, or a byte order mark before UTF-8."""
    lines = [json.dumps(ask("heart.png", f"Ein Herz für dich {n} 🙂."), ensure_ascii=False) for n in range(3)]
    file = with_media(tmp_path) / "rows.jsonl"
    file.write_bytes(("".join(line + ends for line in lines)).encode(encoding))
    rows = read_rows([file], processor, 200, strict=True)
    answers = [row["messages"][-1]["content"][0]["text"] for row in rows.conversations]
    assert answers == [f"Ein Herz für dich {n} 🙂." for n in range(3)]


def test_files_that_were_put_together_keep_their_rows(processor, tmp_path):
    """``cat a.jsonl b.jsonl`` leaves a byte order mark in the middle."""
    file = with_media(tmp_path) / "rows.jsonl"
    file.write_bytes(2 * (codecs.BOM_UTF8 + json.dumps(GOOD).encode() + b"\n"))
    assert len(read_rows([file], processor, 200, strict=True).conversations) == 2
    file.write_bytes((json.dumps(GOOD) + "\n").encode("utf-16")[:-1])
    with pytest.raises(DataError, match="neither whole UTF-8 nor whole UTF-16"):
        read_rows([file], processor, 200)


@pytest.mark.parametrize("folder", ["my [v1] data", "data*", "what?", "{a,b}", "~", "100 %", "$HOME"])
def test_the_file_that_is_named_is_read_and_no_other(folder, processor, tmp_path):
    if os.name == "nt" and set(folder) & set("*?"):
        pytest.skip("no file name there")
    for name in (folder, "data2", "data1", "whatx", "my v data", "a"):
        (tmp_path / name).mkdir()
        with_media(tmp_path / name)
        write(tmp_path / name, ask("heart.png", f"It is in {name}."))
    rows = read_rows([tmp_path / folder / "rows.jsonl"], processor, 200, strict=True)
    assert [row["messages"][-1]["content"][0]["text"] for row in rows.conversations] == [
        f"It is in {folder}."
    ]


def test_an_edited_file_gives_its_new_rows(processor, tmp_path):
    """Even one of the same size and time; and nothing is kept in the home folder."""
    file = write(with_media(tmp_path), ask("heart.png", "It is red."))
    before = file.stat()
    assert (
        read_rows([file], processor, 200).conversations[0]["messages"][-1]["content"][0]["text"]
        == "It is red."
    )
    write(tmp_path, ask("heart.png", "It is big."))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert (
        read_rows([file], processor, 200).conversations[0]["messages"][-1]["content"][0]["text"]
        == "It is big."
    )


def test_no_usable_row_is_an_error(processor, tmp_path):
    with pytest.raises(DataError, match="No usable row"):
        read_rows([write(tmp_path, "{")], processor, 200)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="No usable row"):
        read_rows([tmp_path / "empty.jsonl"], processor, 200)
    for name in ("none.jsonl", "a" * 300, "\0"):
        with pytest.raises(DataError, match="no data file"):
            read_rows([tmp_path / name], processor, 200)
    with pytest.raises(DataError, match="is a folder"):
        read_rows([tmp_path], processor, 200)


def test_words_in_brackets_are_words(processor, tmp_path):
    good = [
        words(f"{said_so} What?")
        for said_so in ("a < b > c", "<b>im</b>", "[1] [imagine]", "<im>", "image 1>", "<the image>")
    ]
    assert len(read_rows([write(tmp_path, *good)], processor, 200, strict=True).conversations) == len(good)


@pytest.mark.parametrize("indent", [1, 4, None])
def test_rows_as_one_document_are_told(indent, processor, tmp_path, caplog):
    file = with_media(tmp_path) / "rows.jsonl"
    file.write_text(json.dumps([GOOD, CLIP], indent=indent).replace("}, {", "},\n{") + "\n")
    if indent is None:
        file.write_text(file.read_text().replace("}]\n", "},\n]\n"))
    with pytest.raises(
        DataError,
        match=r"is one JSON document over many lines: write every row whole on a line of its own\.$",
    ):
        read_rows([file], processor, 200)


def test_columns_of_the_other_kind_may_be_empty(processor, tmp_path):
    """Exporters of tables write every column into every row."""
    every = {"messages": None, "prompt": None, "image": None, "video": None}
    nothing = {"num_frames": None, "start_s": None, "end_s": None, "text": None}
    part = {"type": "image", "path": "heart.png", **nothing}
    rows = read_rows(
        [
            write(
                with_media(tmp_path),
                {**every, **CLIP},
                {**every, **conversation(part, {**said("a"), "path": None})},
            )
        ],
        processor,
        200,
    )
    assert (len(rows.videos), len(rows.conversations), rows.bad) == (1, 1, 0)


def test_the_example_rows_are_good(processor):
    rows = read_rows([ROWS], processor, 2048, strict=True)
    assert (
        len(rows.conversations),
        len(rows.clip_conversations),
        len(rows.stills),
        len(rows.videos),
        rows.bad,
    ) == (2, 1, 1, 2, 0)
