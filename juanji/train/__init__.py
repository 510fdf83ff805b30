"""Training: the loop, recipes, evaluation, and run folders."""

from juanji.train.evaluation import Evaluation, evaluate, evaluate_images, predict
from juanji.train.folder import Config, Run, load_run, save_run
from juanji.train.loop import Epoch, Step, Trainer, fit
from juanji.train.recipe import OPTIMIZERS, Recipe
from juanji.train.run import Session

__all__ = [
    "OPTIMIZERS",
    "Config",
    "Epoch",
    "Evaluation",
    "Recipe",
    "Run",
    "Session",
    "Step",
    "Trainer",
    "evaluate",
    "evaluate_images",
    "fit",
    "load_run",
    "predict",
    "save_run",
]
