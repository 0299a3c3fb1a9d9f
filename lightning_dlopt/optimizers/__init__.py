"""Optimizers and what changes their steps: callbacks, the mixin, and plain functions.

The source document's optimizers are classes of ``torch.optim``, used through
:class:`UseOptimizer`. What they compute for a gradient g, and where Keras 3 differs:

- *SGD*: ``SGD(lr)``, ``w -= lr * g``; over the whole data set at once: gradient descent.
- *Momentum*: ``SGD(lr, momentum=0.9)``, ``v = momentum * v + g``, ``w -= lr * v``. (B. Polyak,
  Some methods of speeding up the convergence of iteration methods, 1964.) Keras has the rate
  inside, ``v = momentum * v - lr * g``, ``w += v``: the same while the rate is constant, but
  after it has changed the old steps keep their size there, and shrink with the rate here.
- *NAG*, Nesterov's: ``SGD(lr, momentum=0.9, nesterov=True)``, ``w -= lr * (g + momentum * v)``
  with the same v; as to a changing rate, the same difference. (Y. Nesterov, 1983; in this form
  I. Sutskever and others, On the importance of initialization and momentum, 2013.)
- *RMSprop*: ``s = alpha * s + (1 - alpha) * g**2``, ``w -= lr * g / (sqrt(s) + eps)``: the
  gradient divided by its own recent size, weight by weight. No momentum, unless given. (G.
  Hinton, Neural Networks for Machine Learning, lecture 6, 2012.) Keras adds its epsilon inside
  the root, ``g / sqrt(s + eps)``; and its defaults are 0.9 for alpha and 1e-7 for eps, where
  torch has 0.99 and 1e-8.
- *Adam*: averages of the gradient and of its square, each freed of its start at zero:
  ``w -= lr * m / (sqrt(v) + eps)``, ``m`` and ``v`` divided by ``1 - beta**step``. (D. Kingma,
  J. Ba, Adam: A Method for Stochastic Optimization, 2015, arXiv:1412.6980, algorithm 1, as in
  torch.) Keras folds the two divisions into the rate, the paper's section 2, where its
  epsilon of 1e-7 is added to the root of the *undivided* average: at step k it counts as
  ``eps / sqrt(1 - beta2**k)`` here, 32 times as much in the first step.
- *AdamW*: the same, with ``w -= lr * weight_decay * w`` beside it instead of the decay being
  added to the gradient. (I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization,
  2019, arXiv:1711.05101.)

Neither Adam nor RMSprop clips gradients, as is sometimes said: they *rescale* every weight's
gradient by its recent size, small ones up as well as large ones down. Clipping leaves all
gradients below a bound as they are.
"""

from lightning_dlopt.optimizers.adaptive_clip import AdaptiveClip, adaptive_clip_
from lightning_dlopt.optimizers.centralize_gradient import CentralizeGradient, centralize_gradient_
from lightning_dlopt.optimizers.clip_grad_norm import ClipGradNorm, clip_by_norm_
from lightning_dlopt.optimizers.clip_grad_value import ClipGradValue, clip_by_value_
from lightning_dlopt.optimizers.clipping import GradientClip
from lightning_dlopt.optimizers.ema import EMA
from lightning_dlopt.optimizers.freeze_layers import FreezeLayers
from lightning_dlopt.optimizers.freezing import freeze, unfreeze
from lightning_dlopt.optimizers.full_batch import FullBatch
from lightning_dlopt.optimizers.full_batch_gradient import full_batch_gradient
from lightning_dlopt.optimizers.gradient_norm import global_norm
from lightning_dlopt.optimizers.groups import group_parameters
from lightning_dlopt.optimizers.lookahead import Lookahead, look_ahead_
from lightning_dlopt.optimizers.mixin import OptimizerMixin
from lightning_dlopt.optimizers.module_average import update_average_
from lightning_dlopt.optimizers.muon import Muon, orthogonalize
from lightning_dlopt.optimizers.quantile_clip import QuantileClip, quantile_norm
from lightning_dlopt.optimizers.sam import SAM
from lightning_dlopt.optimizers.schedule_free import ScheduleFree, evaluation_weights
from lightning_dlopt.optimizers.sharpness import perturb_weights
from lightning_dlopt.optimizers.use_optimizer import UseOptimizer

__all__ = [
    "EMA",
    "SAM",
    "AdaptiveClip",
    "CentralizeGradient",
    "ClipGradNorm",
    "ClipGradValue",
    "FreezeLayers",
    "FullBatch",
    "GradientClip",
    "Lookahead",
    "Muon",
    "OptimizerMixin",
    "QuantileClip",
    "ScheduleFree",
    "UseOptimizer",
    "adaptive_clip_",
    "centralize_gradient_",
    "clip_by_norm_",
    "clip_by_value_",
    "evaluation_weights",
    "freeze",
    "full_batch_gradient",
    "global_norm",
    "group_parameters",
    "look_ahead_",
    "orthogonalize",
    "perturb_weights",
    "quantile_norm",
    "unfreeze",
    "update_average_",
]
