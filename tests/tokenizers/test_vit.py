from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.errors import UserError
from worldsim.tokenizers.build import build_tokenizer, tokenizer_fingerprint
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.protocol import Tokenizer
from worldsim.tokenizers.transformer import Block, attend
from worldsim.tokenizers.vit import VitTokenizer

FRAME_SHAPE = (32, 48, 3)  # 4 x 6 patches
DECODERS = ("patches", "latents")


def tiny(**changes: object) -> TokenizerConfig:
    settings: dict[str, object] = {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "channels": 5}
    return TokenizerConfig(**(settings | changes))  # type: ignore[arg-type]


def random_frames(*leading: int) -> Tensor:
    return torch.randint(0, 256, (*leading, *FRAME_SHAPE), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("merge", "grid"), [([1, 1], (4, 6)), ([2, 2], (2, 3)), ([4, 1], (1, 6)), ([1, 3], (4, 2)), ([4, 6], (1, 1))]
)
def test_shapes_and_ranges(merge: list[int], grid: tuple[int, int]) -> None:
    tokenizer = build_tokenizer(tiny(merge=merge), FRAME_SHAPE)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.grid == grid
    assert tokenizer.latent_shape == (grid[0] * grid[1], 5)
    frames = random_frames(2, 3)
    latents = tokenizer.encode(frames)
    assert latents.shape == (2, 3, *tokenizer.latent_shape)
    assert latents.dtype == torch.float32
    assert latents.abs().max() <= 1
    decoded = tokenizer.decode(latents)
    assert decoded.shape == frames.shape
    assert decoded.dtype == torch.uint8
    assert tokenizer.encode(frames[0, 0]).shape == tokenizer.latent_shape


def test_a_decoder_on_latents_draws_each_token_in_its_own_cell() -> None:
    tokenizer = VitTokenizer(tiny(merge=[4, 2], decoder="latents", decoder_layers=0), FRAME_SHAPE)
    tokenizer.init_weights(torch.Generator().manual_seed(0))
    frames = random_frames(2)
    latents = tokenizer.encode(frames)
    assert latents.shape == (2, 3, 5)
    assert tokenizer.decode(latents).shape == frames.shape
    drawn = tokenizer.decode_range(latents)
    latents[:, 1] += 0.5  # the token of columns 16 to 31
    changed = (tokenizer.decode_range(latents) != drawn).any(-1).all(0)  # (H, W)
    assert changed[:, 16:32].all()
    assert not changed[:, :16].any()
    assert not changed[:, 32:].any()


def test_the_decoder_changes_nothing_for_the_encoder() -> None:
    on_patches, on_latents = (VitTokenizer(tiny(merge=[4, 1], decoder=kind), FRAME_SHAPE) for kind in DECODERS)
    shared = {k: v for k, v in on_patches.state_dict().items() if k.startswith(("embed", "encoder", "to_latent"))}
    on_latents.load_state_dict(shared, strict=False)
    frames = random_frames(2)
    assert torch.equal(on_patches.encode(frames), on_latents.encode(frames))


def test_leading_dimensions_are_only_a_batch() -> None:
    tokenizer = build_tokenizer(tiny(), FRAME_SHAPE)
    frames = random_frames(2, 3)
    latents = tokenizer.encode(frames)
    one = tokenizer.encode(frames[1, 2])
    torch.testing.assert_close(latents[1, 2], one)
    assert (tokenizer.decode(latents)[1, 2].int() - tokenizer.decode(one).int()).abs().max() <= 1


@pytest.mark.parametrize("precision", ["cast", "autocast"])
def test_bf16_gives_nearly_the_same_float32_latents(precision: str) -> None:
    tokenizer = build_tokenizer(tiny(), FRAME_SHAPE)
    frames = random_frames(2)
    expected = tokenizer.encode(frames)
    if precision == "cast":
        latents = tokenizer.to(torch.bfloat16).encode(frames)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            latents = tokenizer.encode(frames)
    assert latents.dtype == torch.float32
    assert (latents - expected).abs().max() < 0.1
    assert tokenizer.decode(latents).dtype == torch.uint8


def test_merged_tokens_are_the_patches_of_their_cell() -> None:
    """`_group` and `_ungroup` are inverses, and a latent token holds exactly the patches of its cell of the grid."""
    tokenizer = VitTokenizer(tiny(merge=[2, 3], width=4, heads=2), FRAME_SHAPE)
    patches = torch.arange(24.0).reshape(1, 24, 1).expand(1, 24, 4)
    grouped = tokenizer._group(patches)
    assert tokenizer.grid == (2, 2)
    assert sorted(set(grouped[0, 1].tolist())) == [3, 4, 5, 9, 10, 11]  # upper right: rows 0-1, columns 3-5
    assert torch.equal(tokenizer._ungroup(grouped), patches)


def test_errors_name_expected_and_given_shape() -> None:
    tokenizer = build_tokenizer(tiny(), FRAME_SHAPE)
    with pytest.raises(ValueError, match=r"\(\.\.\., 32, 48, 3\), got \(2, 48, 32, 3\)"):
        tokenizer.encode(torch.zeros(2, 48, 32, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(\.\.\., 6, 5\), got \(2, 5, 6\)"):
        tokenizer.decode(torch.zeros(2, 5, 6))
    with pytest.raises(ValueError, match=r"uint8 \[0, 255\], got torch.float32"):
        tokenizer.encode(torch.zeros(2, *FRAME_SHAPE))
    with pytest.raises(ValueError, match=r"mask must have shape \(1, 24\), got \(1, 6\)"):
        VitTokenizer(tiny(), FRAME_SHAPE)(torch.zeros(1, *FRAME_SHAPE), torch.zeros(1, 6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 7}, "tokenizer.patch=7 must divide the frame's height 32 and width 48"),
        ({"patch": 0}, "tokenizer.patch=0 must divide"),
        ({"merge": [3, 1]}, r"tokenizer.merge=\[3, 1\] must be .* 4x6 grid"),
        ({"merge": [2]}, r"tokenizer.merge=\[2\]"),
        ({"heads": 5}, "tokenizer.width=32 must be a multiple of tokenizer.heads=5"),
        ({"decoder": "latent"}, "tokenizer.decoder='latent' is unknown: choose patches or latents"),
        ({"kind": "vqgan"}, "tokenizer.kind='vqgan' is unknown: choose one of vit, pixels"),
    ],
)
def test_settings_that_cannot_be_built(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_tokenizer(tiny(**changes), FRAME_SHAPE)


def test_each_image_draws_its_own_share_of_masked_patches() -> None:
    tokenizer = VitTokenizer(tiny(patch=2, mask_max=0.4), FRAME_SHAPE)  # 384 patches
    shares = tokenizer.draw_mask(2000, torch.Generator().manual_seed(0)).float().mean(1)
    assert abs(shares.mean().item() - 0.2) < 0.01  # the mean of U(0, 0.4)
    assert abs(shares.std().item() - 0.4 / 12**0.5) < 0.01  # its spread: one share for all would have far less
    assert shares.max() < 0.5


def test_the_same_generator_state_draws_the_same_mask() -> None:
    tokenizer = VitTokenizer(tiny(), FRAME_SHAPE)
    first, second = (tokenizer.draw_mask(4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_masked_patch_is_invisible_and_an_unmasked_one_is_not() -> None:
    tokenizer = VitTokenizer(tiny(), FRAME_SHAPE)
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[0, 0] = True
    frames = torch.zeros(1, *FRAME_SHAPE)
    hidden, seen = frames.clone(), frames.clone()
    hidden[:, :8, :8] = 1.0  # patch 0
    seen[:, :8, 8:16] = 1.0  # patch 1
    latents = tokenizer.encode_range(frames, mask)
    assert torch.equal(tokenizer.encode_range(hidden, mask), latents)
    assert not torch.equal(tokenizer.encode_range(seen, mask), latents)
    assert not torch.equal(tokenizer.encode_range(frames), latents)


def test_plain_attention_equals_the_fused_kernel() -> None:
    q, k, v = torch.randn(3, 2, 4, 16, 8)
    torch.testing.assert_close(attend(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v))


def test_a_block_whose_branches_are_zero_is_the_identity() -> None:
    block = Block(16, 2)
    for linear in (block.attention.out, block.mlp_out):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    x = torch.randn(2, 5, 16)
    assert torch.equal(block(x), x)


def test_fingerprint_names_weights_and_architecture() -> None:
    torch.manual_seed(0)
    tokenizer = VitTokenizer(tiny(), FRAME_SHAPE)
    fingerprint = tokenizer_fingerprint(tokenizer)
    assert len(fingerprint) == 16
    assert set(fingerprint) <= set("0123456789abcdef")

    twin = VitTokenizer(tiny(steps=7), FRAME_SHAPE)  # how long it was trained changes nothing
    assert tokenizer_fingerprint(twin) != fingerprint
    twin.load_state_dict(tokenizer.state_dict())
    assert tokenizer_fingerprint(twin) == fingerprint
    with torch.no_grad():
        twin.to_latent.bias[0] += 1e-6
    assert tokenizer_fingerprint(twin) != fingerprint

    heads = VitTokenizer(tiny(heads=4), FRAME_SHAPE)  # the same weights, another function
    heads.load_state_dict(tokenizer.state_dict())
    assert tokenizer_fingerprint(heads) != fingerprint
