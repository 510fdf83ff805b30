"""Training: the loop, recipes, checkpoints, evaluation, and run folders."""

from juanji.train.callback import Callback
from juanji.train.choices import Choices
from juanji.train.defaults import Facts
from juanji.train.display import Display
from juanji.train.evaluation import Evaluation, evaluate, evaluate_images, predict
from juanji.train.folder import Config, Run, load_run, save_run
from juanji.train.history import Epoch, Step
from juanji.train.recipe import OPTIMIZERS, SCHEDULES, Recipe
from juanji.train.run import Session
from juanji.train.stepper import Stepper
from juanji.train.tensorboard import TensorBoard
from juanji.train.trainer import Saving, Trainer, fit
from juanji.train.views import TTA

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "TTA",
    "Callback",
    "Choices",
    "Config",
    "Display",
    "Epoch",
    "Evaluation",
    "Facts",
    "Recipe",
    "Run",
    "Saving",
    "Session",
    "Step",
    "Stepper",
    "TensorBoard",
    "Trainer",
    "evaluate",
    "evaluate_images",
    "fit",
    "load_run",
    "predict",
    "save_run",
]
