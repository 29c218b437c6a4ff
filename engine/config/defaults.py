"""Every key of the config with its default, the values that it may have, and the keys that are refused.

A value comes from the last of these that sets it: the defaults below, `add_config(cfg)` of the trainers, the data set's
YAML, the trainer's YAML, the backbone of another library (PREPROCESSING below), the flags, KEY VALUE pairs. Then the
config is checked (load.py), frozen and written to
OUTPUT_DIR/config.yaml.
"""

from __future__ import annotations

import os

from yacs.config import CfgNode as CN


def get_cfg_default() -> CN:
    """Returns a new config that holds every key of the engine with its default value."""
    cfg = CN()
    cfg.VERSION = 1  # of the config format, as in Dassl
    cfg.OUTPUT_DIR = "./output"  # the run folder: log.txt, config.yaml, results.json, checkpoints
    cfg.RESUME = ""  # run folder to resume from; "": OUTPUT_DIR
    cfg.SEED = -1  # decides everything that is drawn; negative: a fresh seed, which is logged
    cfg.USE_CUDA = True  # use the GPU if there is one
    cfg.VERBOSE = True  # log the config and the environment

    cfg.RUN = CN()  # what this call does; train.py's flags set it
    cfg.RUN.CFG = ""  # name of the trainer's YAML, without .yaml
    cfg.RUN.PLUGINS = ()  # modules or .py files that define more trainers and data sets, see plugins.py
    cfg.RUN.EVAL_ONLY = False  # test only, without training
    cfg.RUN.MODEL_DIR = ""  # run folder whose checkpoint is tested
    cfg.RUN.LOAD_EPOCH = -1  # epoch of that checkpoint; -1: model-best.pth.tar
    cfg.RUN.SEARCHED = ()  # keys whose values sweep.py --grid has chosen by the validation images
    cfg.RUN.DETERMINISTIC = False  # the same bits in every run on a GPU too, at a lower speed

    cfg.INPUT = CN()
    cfg.INPUT.SIZE = (224, 224)  # (height, width) in pixels
    cfg.INPUT.INTERPOLATION = "bilinear"  # bilinear, bicubic, nearest
    cfg.INPUT.RESIZE = "crop"  # of test images: crop, hf_crop, squash, see engine/data/transforms.py
    cfg.INPUT.TRANSFORMS = ()  # names, see engine/data/transforms.py
    cfg.INPUT.NO_TRANSFORM = False  # resize to SIZE, and normalize if named; nothing else
    cfg.INPUT.VIEWS = 0  # random views of each training image, encoded once; 0: a fresh one in every epoch
    cfg.INPUT.REDUCED_DECODING = False  # JPEG files at 1/2, 1/4 or 1/8 of their edges, where transforms need no more
    cfg.INPUT.ON_BAD_IMAGE = "error"  # unreadable training and validation images: error, skip (with a warning)
    cfg.INPUT.PIXEL_MEAN = [0.485, 0.456, 0.406]  # of R, G, B in [0, 1]
    cfg.INPUT.PIXEL_STD = [0.229, 0.224, 0.225]  # of R, G, B in [0, 1]
    cfg.INPUT.CROP_PADDING = 4  # random_crop: pixels on each side
    cfg.INPUT.RRCROP_SCALE = (0.08, 1.0)  # random_resized_crop: (smallest, largest) share of the image's area
    cfg.INPUT.CUTOUT_N = 1  # cutout: number of holes
    cfg.INPUT.CUTOUT_LEN = 16  # cutout: a hole's side in pixels
    cfg.INPUT.GN_MEAN = 0.0  # gaussian_noise: mean, for R, G, B in [0, 1]
    cfg.INPUT.GN_STD = 0.15  # gaussian_noise: standard deviation
    cfg.INPUT.RANDAUGMENT_N = 2  # randaugment*: operations on an image
    cfg.INPUT.RANDAUGMENT_M = 10  # randaugment: magnitude of the operations, 0 to 30
    cfg.INPUT.COLORJITTER_B = 0.4  # colorjitter: brightness
    cfg.INPUT.COLORJITTER_C = 0.4  # colorjitter: contrast
    cfg.INPUT.COLORJITTER_S = 0.4  # colorjitter: saturation
    cfg.INPUT.COLORJITTER_H = 0.1  # colorjitter: hue
    cfg.INPUT.RGS_P = 0.2  # randomgrayscale: probability
    cfg.INPUT.GB_P = 0.5  # gaussian_blur: probability
    cfg.INPUT.GB_K = 21  # gaussian_blur: kernel size in pixels, odd

    cfg.DATASET = CN()
    cfg.DATASET.ROOT = ""  # folder of the data sets' folders; "": the data set's own default, if it has one
    cfg.DATASET.NAME = ""  # a name in DATASET_REGISTRY
    cfg.DATASET.NUM_SHOTS = -1  # training images of each class; -1: all
    cfg.DATASET.SELECTION = "few_shot_val"  # to choose hyper-parameters by: few_shot_val, full_val (all), test
    cfg.DATASET.FEWSHOT_FILE = ""  # file that lists the training and validation items, DATASETS.md; "": they are drawn
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base (first half of the labels), new (second half)
    cfg.DATASET.CLASSNAMES = ""  # data set Folder: file with the class names; "": the names of the folders

    cfg.DATALOADER = CN()
    cfg.DATALOADER.NUM_WORKERS = 4  # processes that load images; 0: the main process loads them
    cfg.DATALOADER.CACHE_GB = 2.0  # memory for decoded training images, all processes together; 0: none
    cfg.DATALOADER.K_TRANSFORMS = 1  # augmented views of each training image in a batch
    cfg.DATALOADER.RETURN_IMG0 = False  # batches also hold img0, the image without augmentation
    cfg.DATALOADER.TRAIN_X = CN()
    cfg.DATALOADER.TRAIN_X.SAMPLER = "RandomSampler"  # RandomSampler, SequentialSampler, RandomClassSampler
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 32  # images, of all ranks together
    cfg.DATALOADER.TRAIN_X.N_INS = 16  # RandomClassSampler: images of each class in a batch
    cfg.DATALOADER.TEST = CN()
    cfg.DATALOADER.TEST.SAMPLER = "SequentialSampler"  # SequentialSampler, RandomSampler
    cfg.DATALOADER.TEST.BATCH_SIZE = 32  # images, of all ranks together

    cfg.FEATURES = CN()
    cfg.FEATURES.DIR = os.environ.get("COOP_FEATURES", "~/.cache/clip/features")  # the feature cache; "": memory only
    cfg.FEATURES.MAX_GB = 20.0  # size of that folder; the features used longest ago are deleted first
    cfg.FEATURES.PREPARED = True  # by the image tower with less work, equal but for rounding; False: as it is

    cfg.MODEL = CN()
    cfg.MODEL.INIT_WEIGHTS = ""  # checkpoint that the learned part starts from; "": none
    cfg.MODEL.CHANNELS_LAST = True  # memory format of a ResNet's images; True is faster
    cfg.MODEL.COMPILE = False  # on a GPU: torch.compile with CUDA graphs of the text side, where prompts are trained
    cfg.MODEL.BACKBONE = CN()
    cfg.MODEL.BACKBONE.NAME = ""  # one of clip.available_models(), a path, or docs/BACKBONES.md
    cfg.MODEL.BACKBONE.HEADS = ()  # of a bare file: attention heads of (image tower, text tower); (): by OpenAI's rule
    cfg.MODEL.BACKBONE.ACTIVATION = ""  # of a bare file: quick_gelu, gelu, gelu_tanh; "": by OpenAI's rule

    cfg.OPTIM = CN()
    cfg.OPTIM.NAME = "adam"  # sgd, adam, adamw, amsgrad, rmsprop, radam
    cfg.OPTIM.LR = 0.0003  # learning rate
    cfg.OPTIM.WEIGHT_DECAY = 5e-4  # on every learned parameter
    cfg.OPTIM.MOMENTUM = 0.9  # sgd, rmsprop
    cfg.OPTIM.SGD_DAMPNING = 0  # sgd: dampening of the momentum
    cfg.OPTIM.SGD_NESTEROV = False  # sgd: Nesterov momentum
    cfg.OPTIM.RMSPROP_ALPHA = 0.99  # rmsprop: smoothing
    cfg.OPTIM.ADAM_BETA1 = 0.9  # adam and its kin: decay of the first moment
    cfg.OPTIM.ADAM_BETA2 = 0.999  # adam and its kin: decay of the second moment
    cfg.OPTIM.ADAM_EPS = 1e-8  # adam and its kin: added to the root of the second moment
    cfg.OPTIM.STAGED_LR = False  # a lower learning rate for all modules but NEW_LAYERS
    cfg.OPTIM.NEW_LAYERS = ()  # STAGED_LR: names of the child modules that keep the full rate
    cfg.OPTIM.BASE_LR_MULT = 0.1  # STAGED_LR: factor on the rate of the other modules
    cfg.OPTIM.LR_SCHEDULER = "single_step"  # single_step, multi_step, cosine
    cfg.OPTIM.STEPSIZE = (-1,)  # single_step: a number of epochs, -1 means MAX_EPOCH; multi_step: all step epochs
    cfg.OPTIM.GAMMA = 0.1  # single_step, multi_step: factor at each step
    cfg.OPTIM.MAX_EPOCH = 10  # number of epochs
    cfg.OPTIM.WARMUP_EPOCH = -1  # epochs of warm-up; -1: none
    cfg.OPTIM.WARMUP_TYPE = "linear"  # linear, constant
    cfg.OPTIM.WARMUP_CONS_LR = 1e-5  # constant warm-up: its learning rate
    cfg.OPTIM.WARMUP_MIN_LR = 1e-5  # linear warm-up: learning rate of the first epoch
    cfg.OPTIM.WARMUP_RECOUNT = True  # the schedule starts from its own epoch 0 after the warm-up

    cfg.TRAIN = CN()
    cfg.TRAIN.CHECKPOINT_FREQ = 0  # epochs between checkpoints that are kept; 0, -1: only the last is
    cfg.TRAIN.RESUME_EVERY_S = 60.0  # seconds between writes of the resume point; 0: only when the run is asked to end
    cfg.TRAIN.PRINT_FREQ = 10  # batches between log lines
    cfg.TRAIN.LOGGERS = ("tensorboard",)  # where the curves go: tensorboard, csv, wandb; (): nowhere

    cfg.TEST = CN()
    cfg.TEST.EVALUATOR = "Classification"  # a name in EVALUATOR_REGISTRY
    cfg.TEST.PER_CLASS_RESULT = False  # log the accuracy of each class
    cfg.TEST.COMPUTE_CMAT = False  # save the confusion matrix to OUTPUT_DIR/cmat.pt, cmat.csv and cmat.png
    cfg.TEST.SAVE_PREDICTIONS = True  # write a line for each tested image to OUTPUT_DIR/predictions.csv
    cfg.TEST.SAVE_LOGITS = False  # write all logits of the test to OUTPUT_DIR/logits.npz
    cfg.TEST.TEMPERATURE = True  # fit a temperature, for which the selection items are classified after the test
    cfg.TEST.NO_TEST = False  # stop after training, without the test
    cfg.TEST.SPLIT = "test"  # split to test on: test, val
    cfg.TEST.ON_BAD_IMAGE = "error"  # unreadable test images: error, skip (with a warning)
    cfg.TEST.FINAL_MODEL = "last_step"  # model to test: last_step, or of the best epoch: best_val, best_test
    cfg.TEST.ALLOW_ORACLE = False  # choose by test images, or in a few-shot run by all validation images

    cfg.TRAINER = CN()
    cfg.TRAINER.NAME = ""  # a name in TRAINER_REGISTRY

    for key, (default, _) in REFUSED.items():  # keys of the original that mean nothing here
        *groups, name = key.split(".")
        node = cfg
        for group in groups:
            node = node.setdefault(group, CN())
        node[name] = default
    return cfg


# Keys of the original that mean nothing here -> (default, why). Any other value is an error.
DOMAINS = "Domain labels are not used: another distribution is a data set of its own."
UNLABELLED = "Unlabelled training data (train_u) are not supported."
CIFAR_C = "CIFAR-C is not a data set of this project."
HEAD = "There is no classification head: CLIP's text features are the classifier."
REFUSED = {
    "DATASET.SOURCE_DOMAINS": ((), DOMAINS),
    "DATASET.TARGET_DOMAINS": ((), DOMAINS),
    "DATASET.NUM_LABELED": (-1, "Semi-supervised splits are not supported; set DATASET.NUM_SHOTS."),
    "DATASET.VAL_PERCENT": (0.1, "Validation items come from the split file, or min(shots, 4) of each class."),
    "DATASET.ALL_AS_UNLABELED": (False, UNLABELLED),
    "DATASET.STL10_FOLD": (-1, "STL-10 is not a data set of this project."),
    "DATASET.CIFAR_C_TYPE": ("", CIFAR_C),
    "DATASET.CIFAR_C_LEVEL": (1, CIFAR_C),
    "DATALOADER.TRAIN_X.N_DOMAIN": (0, DOMAINS),
    "DATALOADER.TRAIN_U.SAME_AS_X": (True, UNLABELLED),
    "DATALOADER.TRAIN_U.SAMPLER": ("RandomSampler", UNLABELLED),
    "DATALOADER.TRAIN_U.BATCH_SIZE": (32, UNLABELLED),
    "DATALOADER.TRAIN_U.N_DOMAIN": (0, UNLABELLED),
    "DATALOADER.TRAIN_U.N_INS": (16, UNLABELLED),
    "MODEL.HEAD.NAME": ("", HEAD),
    "MODEL.HEAD.HIDDEN_LAYERS": ((), HEAD),
    "MODEL.HEAD.ACTIVATION": ("relu", HEAD),
    "MODEL.HEAD.BN": (True, HEAD),
    "MODEL.HEAD.DROPOUT": (0.0, HEAD),
    "MODEL.BACKBONE.PRETRAINED": (True, "CLIP is always pretrained; MODEL.BACKBONE.NAME may be a path of weights."),
    "TRAIN.COUNT_ITER": ("train_x", "An epoch is one pass over train_x."),
}

# Key -> the values that it may have.
OPTIONS = {
    "INPUT.ON_BAD_IMAGE": ("error", "skip"),
    "DATASET.SELECTION": ("few_shot_val", "full_val", "test"),
    "DATASET.SUBSAMPLE_CLASSES": ("all", "base", "new"),
    "OPTIM.NAME": ("sgd", "adam", "adamw", "amsgrad", "rmsprop", "radam"),
    "OPTIM.LR_SCHEDULER": ("single_step", "multi_step", "cosine"),
    "OPTIM.WARMUP_TYPE": ("linear", "constant"),
    "TEST.SPLIT": ("test", "val"),
    "TEST.ON_BAD_IMAGE": ("error", "skip"),
    "TEST.FINAL_MODEL": ("last_step", "best_val", "best_test"),
}

BEST_ON = {"best_val": "val", "best_test": "test"}  # TEST.FINAL_MODEL -> the split that is tested after every epoch

LOGGERS = ("tensorboard", "csv", "wandb")  # the names that TRAIN.LOGGERS may hold

# Key -> its smallest value.
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
    "TRAIN.RESUME_EVERY_S": 0,
    "TRAIN.PRINT_FREQ": 1,
}

# Paths that decide what a run computes: load.py writes each in one form.
PATHS = (
    "DATASET.ROOT",
    "DATASET.FEWSHOT_FILE",
    "DATASET.CLASSNAMES",
    "MODEL.BACKBONE.NAME",
    "MODEL.INIT_WEIGHTS",
    "RUN.MODEL_DIR",
)

# How a name of MODEL.BACKBONE begins that another library knows. Then the weights say the keys of PREPROCESSING.
OTHER_LIBRARIES = ("open_clip:", "hf:")
PREPROCESSING = ("INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.RESIZE", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD")

# Keys that decide where and how fast a run computes, not what: with another value it is still the same run.
NOT_IN_DIGEST = {
    "VERSION", "OUTPUT_DIR", "RESUME", "USE_CUDA", "VERBOSE", "RUN.CFG", "RUN.SEARCHED", "DATASET.ROOT",
    "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_GB", "FEATURES.DIR", "FEATURES.MAX_GB", "MODEL.CHANNELS_LAST",
    "MODEL.COMPILE", "TRAIN.CHECKPOINT_FREQ", "TRAIN.RESUME_EVERY_S", "TRAIN.PRINT_FREQ", "TRAIN.LOGGERS",
    "TEST.SAVE_PREDICTIONS", "TEST.SAVE_LOGITS", "TEST.TEMPERATURE", "TEST.ALLOW_ORACLE",
}  # fmt: skip
