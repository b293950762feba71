"""The codebook: nearest codes, running means in closed form, dead codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.codebook import Codebook, nearest_code, perplexity


def codebook(codes: Tensor) -> Codebook:
    """Each of the codes was chosen twice a batch so far."""
    book = Codebook(*codes.shape)
    book.codes.copy_(codes)
    book.chosen.fill_(2.0)
    book.sums.copy_(2 * codes)
    return book


def test_the_nearest_code_is_that_of_the_smallest_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, codes = torch.randn(3, 50, 4, generator=generator), torch.randn(20, 4, generator=generator)
    expected = (vectors[..., None, :] - codes).square().sum(-1).argmin(-1)
    assert torch.equal(nearest_code(vectors, codes), expected)


def test_codes_are_told_apart_where_the_caller_computes_in_bf16() -> None:
    codes = 1 + torch.arange(64.0)[:, None] / 1024  # float16 knows these steps, bf16 does not
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest_code(codes.half().float(), codes).tolist() == list(range(64))


def test_an_update_is_a_running_mean_of_counts_and_sums() -> None:
    before = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
    book = codebook(before)
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 3.0]]])
    indices = book.nearest(vectors)
    assert indices.tolist() == [[0, 0, 1]]
    counts = book.update(vectors, indices, 0.9, torch.zeros(2, dtype=torch.int64))
    assert counts.tolist() == [2.0, 1.0]
    chosen = [0.9 * 2 + 0.1 * 2, 0.9 * 2 + 0.1 * 1]
    torch.testing.assert_close(book.chosen, torch.tensor(chosen))
    torch.testing.assert_close(book.codes[0], 0.1 * torch.tensor([1.0, 1.0]) / chosen[0])
    torch.testing.assert_close(book.codes[1], (1.8 * before[1] + 0.1 * torch.tensor([5.0, 3.0])) / chosen[1])


def test_with_one_batch_again_and_again_codes_become_the_means_of_what_chose_them() -> None:
    book = codebook(torch.tensor([[-1.0], [1.0]]))
    vectors = torch.tensor([[[-4.0], [-2.0]], [[2.0], [2.5]]])
    for _ in range(300):
        book.update(vectors, book.nearest(vectors), 0.9, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(book.codes, torch.tensor([[-3.0], [2.25]]))


def test_dead_codes_become_vectors_of_the_batch_and_others_do_not() -> None:
    book = codebook(torch.tensor([[0.0], [100.0], [-100.0]]))
    vectors = torch.tensor([[[1.0], [-1.0]], [[2.0], [-2.0]]])
    heirs = torch.tensor([0, 2, 3])
    steps = 0
    while float(book.codes[1]) == pytest.approx(100.0):
        book.update(vectors, book.nearest(vectors), 0.9, heirs)
        steps += 1
    assert 2 * 0.9**steps < 0.1 <= 2 * 0.9 ** (steps - 1)
    assert book.codes[1:].tolist() == [[2.0], [-2.0]]
    assert float(book.codes[0]) == pytest.approx(0.0, abs=1e-6)


def test_a_fresh_codebook_takes_its_codes_from_the_first_batch() -> None:
    book = Codebook(5, 2)
    book.init_weights(torch.Generator().manual_seed(0))
    vectors = 50 + torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1))
    heirs = torch.tensor([11, 0, 5, 7, 3])
    book.update(vectors, book.nearest(vectors), 0.99, heirs)
    assert torch.equal(book.codes, vectors.reshape(-1, 2)[heirs])
    assert (book.chosen == 1).all()


def test_perplexity() -> None:
    assert float(perplexity(torch.tensor([3.0, 3.0, 0.0, 3.0]))) == pytest.approx(3.0)
    assert float(perplexity(torch.tensor([0.0, 7.0]))) == pytest.approx(1.0)
