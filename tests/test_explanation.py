"""Which feature moved, which way and how far."""

import numpy as np
import pytest

from diffpath.detection.explanation import AS_A_WHOLE, NOTHING_STANDS_OUT, explain
from diffpath.options import FEATURE_NAMES


def test_up_to_three_features_are_named_the_farthest_first():
    assert explain([[0.5, 4.06, -12.4, 3.0, -2.9, 1234.0]], [0.01]) == [
        "rate³ +1,234 sd, error³ −12 sd, error² +4.1 sd"
    ]


def test_a_feature_within_three_deviations_is_not_named():
    assert explain([[2.9, -2.9, 0, 0, 0, 0]], [0.01]) == [NOTHING_STANDS_OUT]


@pytest.mark.parametrize("k", range(6))
@pytest.mark.parametrize("sign", [1, -1])
def test_each_feature_is_named_with_the_way_that_it_moved(k, sign):
    z_scores = np.zeros(6)
    z_scores[k] = 5 * sign
    assert explain([z_scores], [0.01]) == [f"{FEATURE_NAMES[k]} {'+' if sign > 0 else '−'}5.0 sd"]


def test_an_image_that_is_not_unusual_needs_no_explanation():
    assert explain([[9.0, 0, 0, 0, 0, 0], np.zeros(6), np.zeros(6)], [0.11, 0.5, 0.1]) == [
        "",
        "",
        NOTHING_STANDS_OUT,
    ]


def test_no_samples_give_no_sentences():
    assert explain(np.zeros((0, 6)), []) == []


def test_what_lies_apart_is_said_first_and_in_its_own_words():
    apart = {"detail": [0.01, 0.002, 0.5], "whole": [0.5, 0.04, 0.03], "embedding": [0.003, 0.5, 0.5]}
    words = {"detail": ["blurred", "", "blurred"], "whole": [AS_A_WHOLE] * 3}
    z_scores = [np.zeros(6), np.zeros(6), [0, 4.1, 0, 0, 0, 0]]
    assert explain(z_scores, [0.01, 0.01, 0.01], apart, words) == [
        "blurred, embedding far out (p 0.003)",
        f"detail far out (p 0.002), {AS_A_WHOLE}",
        f"{AS_A_WHOLE}, error² +4.1 sd",
    ]
