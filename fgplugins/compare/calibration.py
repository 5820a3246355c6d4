"""Whether probabilities mean what they say: calibration error, and a temperature that mends it."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

__all__ = ['calibration_error', 'fit_temperature', 'negative_log_likelihood']

BINS = 15
BOUNDS = (math.log(0.01), math.log(100.0))  # of the logarithm of the temperature

# Shapes: scores (n, Y) of n images and Y classes, labels (n,).


def calibration_error(scores: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """How far the probability of the predicted class is from how often it is right: ECE, in points.

    ECE = sum_b n_b / n |accuracy(b) - confidence(b)| over 15 bins of equal width (Guo et al., On
    Calibration of Modern Neural Networks, ICML 2017); in bin b, b / 15 < p <= (b + 1) / 15.

    Args:
        scores: softmax of them gives the probabilities.
        labels: true classes.
        temperature: that the scores are divided by.
    """
    logs = log_softmax(scores.astype(np.float64) / temperature, axis=1)
    predicted = scores.argmax(axis=1)
    confidence = np.exp(logs[np.arange(len(labels)), predicted])
    right = predicted == labels
    bins = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(100 * np.abs(gaps).sum() / len(labels))


def negative_log_likelihood(
    scores: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> float:
    """Mean over the images of -log p(true class)."""
    logs = log_softmax(scores.astype(np.float64) / temperature, axis=1)
    return float(-logs[np.arange(len(labels)), labels].mean())


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, between 0.01 and 100, of the least negative log likelihood.

    Args:
        scores: of validation images.
        labels: their true classes.
    """

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(scores, labels, math.exp(log_temperature))

    found = minimize_scalar(loss, bounds=BOUNDS, method='bounded', options={'xatol': 1e-8})
    return math.exp(found.x)
