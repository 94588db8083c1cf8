"""The noise schedule of spec section 5: what training adds noise by and denoising removes it by."""

from __future__ import annotations

from diffusers import CogVideoXDDIMScheduler


def build_scheduler() -> CogVideoXDDIMScheduler:
    """The released schedule (spec section 5)."""
    return CogVideoXDDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
    )
