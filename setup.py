"""What the project is and what it needs. Run from the repository's root: configs/ and scripts/ are not installed."""

from setuptools import setup

# Named one by one: `clip` and `datasets` share their names with other projects, so nothing is found by chance.
PACKAGES = [
    "benchmarks",
    "clip",
    "clip.backbones",
    "clip.models",
    "clip.prepared",
    "dassl",
    "dassl.data",
    "dassl.data.datasets",
    "dassl.data.transforms",
    "dassl.engine",
    "dassl.evaluation",
    "dassl.optim",
    "dassl.utils",
    "datasets",
    "datasets.drawing",
    "datasets.fetch",
    "datasets.splits",
    "datasets.verify",
    "engine",
    "engine.config",
    "engine.data",
    "engine.evaluation",
    "engine.features",
    "engine.run",
    "inference",
    "launch",
    "reports",
    "reports.figures",
    "reports.of_run",
    "reports.render",
    "reports.tables",
    "tools",
    "trainers",
]
MODULES = [
    "demo",
    "draw_curves",
    "export",
    "interpret_prompt",
    "parse_test_res",
    "predict",
    "report",
    "reproduce",
    "sweep",
    "train",
]

REQUIREMENTS = [
    "ftfy>=6.1",
    "gdown>=6.3",
    "huggingface_hub>=0.20",
    "matplotlib>=3.7",
    "numpy>=1.26",
    "packaging>=21.0",
    "pillow>=9.5",
    "pyyaml>=6.0",
    "regex>=2022.10.31",
    "safetensors>=0.4",
    "scikit-learn>=1.3",
    "scipy>=1.15",  # from there on wilcoxon() is exact where differences are equal
    "tabulate>=0.9",
    "tensorboard>=2.14",
    "torch>=2.6",  # from there on torch.load(weights_only=True) runs no code
    "torchvision>=0.21",
    "tqdm>=4.65",
    "yacs>=0.1.8",
]

EXTRAS = {
    "demo": ["gradio>=6.0"],  # demo.py
    "export": ["onnx>=1.17", "onnxruntime>=1.19", "onnxscript>=0.3"],  # export.py --format onnx
    "hf": ["protobuf>=4.21", "sentencepiece>=0.2", "transformers>=5.0"],  # MODEL.BACKBONE.NAME hf:...
    "notebook": ["ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.10"],  # docs/tour.ipynb
    "open_clip": ["open_clip_torch>=3.0", "transformers>=4.56"],  # MODEL.BACKBONE.NAME open_clip:...
    "ray": ["ray>=2.9"],  # sweep.py --launcher ray
    "wandb": ["wandb>=0.17"],  # TRAIN.LOGGERS
}
EXTRAS["test"] = [
    *(requirement for requirements in EXTRAS.values() for requirement in requirements),
    "gradio_client>=2.0",
    "playwright>=1.45",
    "pytest>=8.0",
    "pytest-cov>=5.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "requests>=2.31",
    "ruff>=0.6",
    "tokenizers>=0.20",
    "torchmetrics>=1.4",
    "urllib3>=2.0",
]

setup(
    name="prompt-learning-clip",
    version="0.1.0",
    description="Prompt learning for vision-language models: CoOp, CoCoOp and their baselines on CLIP",
    license="MIT",
    python_requires=">=3.10",
    packages=PACKAGES,
    py_modules=MODULES,
    package_data={
        "clip": ["VOCABULARY.md", "bpe_simple_vocab_16e6.txt.gz", "shapes.npz"],
        "datasets.splits": ["imagenet_names.txt"],
        "reports.of_run": ["run.css"],
        "reports.render": ["page.css"],
        "reports.tables": ["paper.yaml", "published.yaml"],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
)
