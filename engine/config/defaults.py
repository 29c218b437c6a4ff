"""The config: every key with its default, the options of each, and the keys that are refused.

Order: the defaults below, `add_config(cfg)` of every trainer, the data set's YAML, the trainer's YAML, the flags given,
KEY VALUE pairs; then the config is checked, frozen and written to OUTPUT_DIR/config.yaml (see config_file.py).
"""

from __future__ import annotations

import os

from yacs.config import CfgNode as CN


def get_cfg_default() -> CN:
    """Returns a new config that holds every key of the engine with its default value."""
    cfg = CN()
    cfg.VERSION = 1
    cfg.OUTPUT_DIR = "./output"  # where log.txt, config.yaml, results.json and checkpoints go
    cfg.RESUME = ""  # folder of an unfinished run to go on from; "": OUTPUT_DIR itself
    cfg.SEED = -1  # of everything that is drawn; negative: a fresh one, which is logged
    cfg.USE_CUDA = True  # where there is a GPU
    cfg.VERBOSE = True  # log the config and the environment

    cfg.RUN = CN()  # what this call does, set by train.py's flags
    cfg.RUN.CFG = ""  # name of the trainer's config file, without .yaml
    cfg.RUN.PLUGINS = ()  # modules or files that define trainers or data sets beside ours, see plugins.py
    cfg.RUN.EVAL_ONLY = False
    cfg.RUN.MODEL_DIR = ""  # folder of the run whose checkpoint is evaluated
    cfg.RUN.LOAD_EPOCH = -1  # epoch of that checkpoint; -1: model-best.pth.tar
    cfg.RUN.DETERMINISTIC = False  # the same bits on every run of a GPU too, which is slower there

    cfg.INPUT = CN()
    cfg.INPUT.SIZE = (224, 224)  # height, width in pixels
    cfg.INPUT.INTERPOLATION = "bilinear"  # bilinear, bicubic, nearest
    cfg.INPUT.TRANSFORMS = ()  # names of engine/data/transforms.py
    cfg.INPUT.NO_TRANSFORM = False  # only resize to SIZE
    cfg.INPUT.VIEWS = 0  # random views of each training image, encoded once; 0: a fresh one in every epoch
    cfg.INPUT.ON_BAD_IMAGE = "error"  # of training and drawn validation images; error, skip (and tell)
    cfg.INPUT.PIXEL_MEAN = [0.485, 0.456, 0.406]  # of RGB in [0, 1]
    cfg.INPUT.PIXEL_STD = [0.229, 0.224, 0.225]
    cfg.INPUT.CROP_PADDING = 4  # random_crop, in pixels
    cfg.INPUT.RRCROP_SCALE = (0.08, 1.0)  # random_resized_crop, share of the image's area
    cfg.INPUT.CUTOUT_N = 1  # number of holes
    cfg.INPUT.CUTOUT_LEN = 16  # a hole's side, in pixels
    cfg.INPUT.GN_MEAN = 0.0  # gaussian_noise, RGB in [0, 1]
    cfg.INPUT.GN_STD = 0.15
    cfg.INPUT.RANDAUGMENT_N = 2  # operations per image
    cfg.INPUT.RANDAUGMENT_M = 10  # their magnitude
    cfg.INPUT.COLORJITTER_B = 0.4  # brightness
    cfg.INPUT.COLORJITTER_C = 0.4  # contrast
    cfg.INPUT.COLORJITTER_S = 0.4  # saturation
    cfg.INPUT.COLORJITTER_H = 0.1  # hue
    cfg.INPUT.RGS_P = 0.2  # randomgrayscale, probability
    cfg.INPUT.GB_P = 0.5  # gaussian_blur, probability
    cfg.INPUT.GB_K = 21  # gaussian_blur, kernel size in pixels, odd

    cfg.DATASET = CN()
    cfg.DATASET.ROOT = ""  # folder that holds the data sets' folders
    cfg.DATASET.NAME = ""
    cfg.DATASET.NUM_SHOTS = -1  # training items per class; -1: all
    cfg.DATASET.FEWSHOT_FILE = ""  # JSON Lines of the training and val items; "": they are drawn
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base (the first half of the labels), new (the rest)
    cfg.DATASET.CLASSNAMES = ""  # data set Folder: file of class names; "": the folders' names
    cfg.DATASET.SOURCE_DOMAINS = ()
    cfg.DATASET.TARGET_DOMAINS = ()
    cfg.DATASET.NUM_LABELED = -1
    cfg.DATASET.VAL_PERCENT = 0.1
    cfg.DATASET.ALL_AS_UNLABELED = False
    cfg.DATASET.STL10_FOLD = -1
    cfg.DATASET.CIFAR_C_TYPE = ""
    cfg.DATASET.CIFAR_C_LEVEL = 1

    cfg.DATALOADER = CN()
    cfg.DATALOADER.NUM_WORKERS = 4
    cfg.DATALOADER.CACHE_GB = 2.0  # decoded training images kept in memory, by all workers together; 0: none
    cfg.DATALOADER.K_TRANSFORMS = 1  # augmented views of each training image
    cfg.DATALOADER.RETURN_IMG0 = False  # also give the image without augmentation
    cfg.DATALOADER.TRAIN_X = CN()
    cfg.DATALOADER.TRAIN_X.SAMPLER = "RandomSampler"  # RandomSampler, SequentialSampler, RandomClassSampler
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 32
    cfg.DATALOADER.TRAIN_X.N_DOMAIN = 0
    cfg.DATALOADER.TRAIN_X.N_INS = 16  # RandomClassSampler: images of each class in a batch
    cfg.DATALOADER.TRAIN_U = CN()
    cfg.DATALOADER.TRAIN_U.SAME_AS_X = True
    cfg.DATALOADER.TRAIN_U.SAMPLER = "RandomSampler"
    cfg.DATALOADER.TRAIN_U.BATCH_SIZE = 32
    cfg.DATALOADER.TRAIN_U.N_DOMAIN = 0
    cfg.DATALOADER.TRAIN_U.N_INS = 16
    cfg.DATALOADER.TEST = CN()
    cfg.DATALOADER.TEST.SAMPLER = "SequentialSampler"
    cfg.DATALOADER.TEST.BATCH_SIZE = 32

    cfg.FEATURES = CN()
    cfg.FEATURES.DIR = os.environ.get("COOP_FEATURES", "~/.cache/clip/features")  # image features; "": memory alone
    cfg.FEATURES.MAX_GB = 20.0  # of FEATURES.DIR; what was used longest ago makes room

    cfg.MODEL = CN()
    cfg.MODEL.INIT_WEIGHTS = ""  # checkpoint of the learned part to start from
    cfg.MODEL.CHANNELS_LAST = True  # memory format of a ResNet's images, the faster one
    cfg.MODEL.BACKBONE = CN()
    cfg.MODEL.BACKBONE.NAME = ""  # a name of clip.available_models() or a path to a checkpoint
    cfg.MODEL.BACKBONE.PRETRAINED = True
    cfg.MODEL.HEAD = CN()
    cfg.MODEL.HEAD.NAME = ""
    cfg.MODEL.HEAD.HIDDEN_LAYERS = ()
    cfg.MODEL.HEAD.ACTIVATION = "relu"
    cfg.MODEL.HEAD.BN = True
    cfg.MODEL.HEAD.DROPOUT = 0.0

    cfg.OPTIM = CN()
    cfg.OPTIM.NAME = "adam"  # sgd, adam, adamw, amsgrad, rmsprop, radam
    cfg.OPTIM.LR = 0.0003
    cfg.OPTIM.WEIGHT_DECAY = 5e-4
    cfg.OPTIM.MOMENTUM = 0.9  # sgd, rmsprop
    cfg.OPTIM.SGD_DAMPNING = 0
    cfg.OPTIM.SGD_NESTEROV = False
    cfg.OPTIM.RMSPROP_ALPHA = 0.99
    cfg.OPTIM.ADAM_BETA1 = 0.9
    cfg.OPTIM.ADAM_BETA2 = 0.999
    cfg.OPTIM.STAGED_LR = False  # lower rate for all but NEW_LAYERS
    cfg.OPTIM.NEW_LAYERS = ()  # names of child modules that keep the full rate
    cfg.OPTIM.BASE_LR_MULT = 0.1  # factor on the rate of the other layers
    cfg.OPTIM.LR_SCHEDULER = "single_step"  # single_step, multi_step, cosine
    cfg.OPTIM.STEPSIZE = (-1,)  # single_step: one epoch count, -1 means MAX_EPOCH; multi_step: milestones
    cfg.OPTIM.GAMMA = 0.1  # factor at each step
    cfg.OPTIM.MAX_EPOCH = 10
    cfg.OPTIM.WARMUP_EPOCH = -1  # epochs of warm-up; -1: none
    cfg.OPTIM.WARMUP_TYPE = "linear"  # linear, constant
    cfg.OPTIM.WARMUP_CONS_LR = 1e-5  # rate during constant warm-up
    cfg.OPTIM.WARMUP_MIN_LR = 1e-5  # rate of the first epoch of linear warm-up
    cfg.OPTIM.WARMUP_RECOUNT = True  # the schedule counts from the end of the warm-up as if from its own start

    cfg.TRAIN = CN()
    cfg.TRAIN.CHECKPOINT_FREQ = 0  # keep a checkpoint every so many epochs; 0: only the last
    cfg.TRAIN.RESUME_EVERY_S = 60.0  # seconds between writes of the file that an interrupted run resumes from; 0: none
    cfg.TRAIN.PRINT_FREQ = 10  # batches between log lines
    cfg.TRAIN.COUNT_ITER = "train_x"

    cfg.TEST = CN()
    cfg.TEST.EVALUATOR = "Classification"
    cfg.TEST.PER_CLASS_RESULT = False
    cfg.TEST.COMPUTE_CMAT = False  # save the confusion matrix to OUTPUT_DIR/cmat.pt
    cfg.TEST.NO_TEST = False  # end after training
    cfg.TEST.SPLIT = "test"  # test, val
    cfg.TEST.ON_BAD_IMAGE = "error"  # of the images that a result is measured on; error, skip (and tell)
    cfg.TEST.FINAL_MODEL = "last_step"  # last_step, best_val (validated after every epoch)

    cfg.TRAINER = CN()
    cfg.TRAINER.NAME = ""
    return cfg


# Keys whose meaning lies outside this project: a value other than the default is refused, never ignored.
REFUSED = {
    "DATASET.SOURCE_DOMAINS": "Domain labels are not used: another distribution is a data set of its own.",
    "DATASET.TARGET_DOMAINS": "Domain labels are not used: another distribution is a data set of its own.",
    "DATASET.NUM_LABELED": "Semi-supervised splits are not supported; DATASET.NUM_SHOTS sets the items per class.",
    "DATASET.VAL_PERCENT": "Validation items come from the split file, or min(shots, 4) of each class.",
    "DATASET.ALL_AS_UNLABELED": "Unlabelled training data are not supported.",
    "DATASET.STL10_FOLD": "STL-10 is not a data set of this project.",
    "DATASET.CIFAR_C_TYPE": "CIFAR-C is not a data set of this project.",
    "DATASET.CIFAR_C_LEVEL": "CIFAR-C is not a data set of this project.",
    "DATALOADER.TRAIN_X.N_DOMAIN": "Domain labels are not used.",
    **{
        f"DATALOADER.TRAIN_U.{key}": "Unlabelled training data (train_u) are not supported."
        for key in ("SAME_AS_X", "SAMPLER", "BATCH_SIZE", "N_DOMAIN", "N_INS")
    },
    **{
        f"MODEL.HEAD.{key}": "There is no classification head: CLIP's text features are the classifier."
        for key in ("NAME", "HIDDEN_LAYERS", "ACTIVATION", "BN", "DROPOUT")
    },
    "MODEL.BACKBONE.PRETRAINED": "CLIP is always pretrained; give MODEL.BACKBONE.NAME a path to use other weights.",
    "TRAIN.COUNT_ITER": "An epoch is one pass over train_x.",
}

OPTIONS = {
    "INPUT.ON_BAD_IMAGE": ("error", "skip"),
    "DATASET.SUBSAMPLE_CLASSES": ("all", "base", "new"),
    "OPTIM.NAME": ("sgd", "adam", "adamw", "amsgrad", "rmsprop", "radam"),
    "OPTIM.LR_SCHEDULER": ("single_step", "multi_step", "cosine"),
    "OPTIM.WARMUP_TYPE": ("linear", "constant"),
    "TEST.SPLIT": ("test", "val"),
    "TEST.ON_BAD_IMAGE": ("error", "skip"),
    "TEST.FINAL_MODEL": ("last_step", "best_val"),
}

AT_LEAST = {
    "INPUT.VIEWS": 0,
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.CACHE_GB": 0,
    "DATALOADER.K_TRANSFORMS": 1,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 1,
    "DATALOADER.TRAIN_X.N_INS": 1,
    "DATALOADER.TEST.BATCH_SIZE": 1,
    "OPTIM.LR": 0,
    "OPTIM.MAX_EPOCH": 1,
    "TRAIN.CHECKPOINT_FREQ": 0,
    "TRAIN.RESUME_EVERY_S": 0,
    "TRAIN.PRINT_FREQ": 1,
}

# Files and folders that decide what a run computes.
PATHS = (
    "DATASET.ROOT",
    "DATASET.FEWSHOT_FILE",
    "DATASET.CLASSNAMES",
    "MODEL.BACKBONE.NAME",
    "MODEL.INIT_WEIGHTS",
    "RUN.MODEL_DIR",
)

# Keys that say where and how fast a run goes, not what it computes: another value is still the same run.
NOT_IN_DIGEST = {
    "VERSION", "OUTPUT_DIR", "RESUME", "USE_CUDA", "VERBOSE", "RUN.CFG", "DATASET.ROOT", "DATALOADER.NUM_WORKERS",
    "DATALOADER.CACHE_GB", "FEATURES.DIR", "FEATURES.MAX_GB", "MODEL.CHANNELS_LAST", "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.RESUME_EVERY_S", "TRAIN.PRINT_FREQ",
}  # fmt: skip
