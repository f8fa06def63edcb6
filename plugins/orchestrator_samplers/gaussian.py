"""Gaussian process regression over recipes: points that do not all have the same parameters."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

INACTIVE = -1.0
ITERATIONS = 25
WEIGHT_PRIOR, NOISE_PRIOR = (np.log(0.3), 1.5), (np.log(1e-2), 2.0)
"""Mean and standard deviation of the logarithms of weights and noise (the signal's variance is 1)."""
BOUNDS = np.log(1e-4), np.log(1e2)


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the distance of two sets of points in each parameter, 0 to 1.

    Args:
        left: Shape (n, parameters): numbers scaled to 0..1, indices of choices, INACTIVE if a point has no such parameter.
        right: Shape (m, parameters).

    Returns:
        Shape (parameters, n, m): the difference of numbers, 1 for two choices, and if only one point has the parameter.
    """
    apart: np.ndarray = left.T[:, :, None] - right.T[:, None, :]
    np.abs(apart, out=apart)
    np.minimum(apart, 1.0, out=apart)
    return apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameters:
    """Logarithms of the weights of the parameters and of the noise's share of the variance."""

    weights: np.ndarray
    noise: float

    @classmethod
    def usual(cls, parameters: int) -> "Hyperparameters":
        """Return the prior means."""
        return cls(weights=np.full(parameters, WEIGHT_PRIOR[0]), noise=NOISE_PRIOR[0])


def fitted(apart: np.ndarray, values: np.ndarray, start: Hyperparameters) -> Hyperparameters:
    """Return the hyperparameters of greatest posterior density (Rasmussen and Williams 2006, 5.4), the variance profiled out.

    Args:
        apart: `distances` of the points from each other.
        values: Shape (n,), standardised.
        start: Hyperparameters at which the fit starts.
    """
    n = len(values)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        weights, noise = np.exp(theta[:-1]), np.exp(theta[-1])
        signal = np.exp(-np.tensordot(weights, apart, axes=1))
        factor = cholesky(signal + (noise + 1e-8) * np.eye(n), lower=True)
        inverse = cho_solve((factor, True), np.eye(n))
        alpha = inverse @ values
        variance = float(values @ alpha) / n + 1e-12
        inner = np.outer(alpha, alpha) / variance - inverse
        gradient = np.append(-0.5 * weights * np.tensordot(apart, inner * signal, axes=2), 0.5 * noise * np.trace(inner))
        likelihood = -0.5 * n * np.log(variance) - float(np.log(np.diag(factor)).sum())
        means = np.append(np.full(len(weights), WEIGHT_PRIOR[0]), NOISE_PRIOR[0])
        spreads = np.append(np.full(len(weights), WEIGHT_PRIOR[1]), NOISE_PRIOR[1])
        off = (theta - means) / spreads
        return 0.5 * float(off @ off) - likelihood, off / spreads - gradient

    theta = np.append(start.weights, start.noise)
    result = minimize(loss, theta, jac=True, method="L-BFGS-B", bounds=[BOUNDS] * len(theta), options={"maxiter": ITERATIONS})
    return Hyperparameters(weights=result.x[:-1], noise=float(result.x[-1]))


class GaussianProcess:
    """Regression with the kernel exp(-sum of weight times distance): small weights make it nearly additive.

    Args:
        apart: `distances` of the points from each other, shape (parameters, n, n).
        values: Shape (n,).
    """

    def __init__(self, apart: np.ndarray, values: np.ndarray, hyperparameters: Hyperparameters) -> None:
        self._weights = np.exp(hyperparameters.weights)
        self._mean = float(values.mean())
        kernel = np.exp(-np.tensordot(self._weights, apart, axes=1))
        self._factor = cholesky(kernel + (np.exp(hyperparameters.noise) + 1e-8) * np.eye(len(values)), lower=True)
        self._alpha = cho_solve((self._factor, True), values - self._mean)
        self._variance = float((values - self._mean) @ self._alpha) / len(values) + 1e-12

    def predict(self, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the standard deviation at other points.

        Args:
            apart: Their `distances` from the points, shape (parameters, m, n).
        """
        kernel = np.exp(-np.tensordot(self._weights, apart, axes=1))
        reduced = solve_triangular(self._factor, kernel.T, lower=True)
        variance = self._variance * np.maximum(1.0 - (reduced**2).sum(axis=0), 1e-9)
        return self._mean + kernel @ self._alpha, np.sqrt(variance)
