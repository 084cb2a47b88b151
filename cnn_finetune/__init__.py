"""Train an image classifier on your own photographs, from the notebooks of one book"""
__version__ = "0.1.0"

import warnings

# fastai 2.8 calls torch.jit.script at import, which torch 2.13 and newer warn about.
warnings.filterwarnings('ignore', message='`torch.jit.script` is deprecated', category=FutureWarning)
