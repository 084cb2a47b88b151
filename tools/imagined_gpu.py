"""Follow every tensor as if a GPU were here: an operation that mixes devices is an error, as it is on a GPU.

    python tools/imagined_gpu.py [NAME ...]

The numbers are computed on the CPU. A tensor that is moved to 'cuda' is remembered by its memory, its `device` is said
to be 'cuda:0', and so are all results of it. This finds a tensor that was left on the CPU, without a GPU. It says nothing
about speed, rounding or memory: gpu_check.py does, where there is a GPU. Takes about a minute; NAME picks some of the runs.
"""
import os, sys, tempfile, warnings
from pathlib import Path

warnings.filterwarnings('ignore')
os.environ['CNN_FINETUNE_PROFILE'] = 'off'
import torch
from fastai.callback.progress import ProgressCallback
from torch.overrides import TorchFunctionMode
from cnn_finetune.all import Predictor, cnn_learner
from cnn_finetune.data import table_dls, table_from
from cnn_finetune.images import Preprocess
from cnn_finetune.why import faithfulness

Tensor = torch.Tensor
MAY_MIX = {'copy_', '__set__', '__setitem__', 'load_state_dict', '_has_compatible_shallow_copy_type', 'swap_tensors'}


def is_cuda(device): return torch.device(device).type == 'cuda'


def tensors(value):
    "All tensors in nested lists and dicts."
    if isinstance(value, Tensor): return [value]
    if isinstance(value, dict): value = value.values()
    elif not isinstance(value, (list, tuple)): return []
    return [t for v in value for t in tensors(v)]


class ImaginedGPU(TorchFunctionMode):
    "While it is on, every function of torch goes by `__torch_function__`."
    def __init__(self):
        super().__init__()
        self.memory = {}  # Address to storage, which is kept, so that no other tensor gets its address

    def here(self, t):
        "Whether a tensor is on the imagined GPU"
        with torch._C.DisableTorchFunction():
            if t.device.type == 'meta': return False
            storage = t.untyped_storage()
            return storage.nbytes() > 0 and storage.data_ptr() in self.memory

    def put(self, value):
        with torch._C.DisableTorchFunction():
            for t in tensors(value):
                if t.device.type != 'meta' and t.untyped_storage().nbytes():
                    self.memory[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return value

    def moved(self, x, args, kwargs):
        "Tensor.to"
        other = next((a for a in args if isinstance(a, Tensor)), None)
        if other is not None: args = [torch.device('cuda') if self.here(other) else other.device, other.dtype]
        places = [i for i, a in enumerate(args) if isinstance(a, (torch.device, str))]
        target = args[places[0]] if places else kwargs.get('device')
        if target is None:
            y = x.to(*args, **kwargs)
            return self.put(y) if self.here(x) else y
        if 'meta' in (torch.device(target).type, x.device.type): return x.to(*args, **kwargs)
        args = ['cpu' if i in places else a for i, a in enumerate(args)]
        y = x.to(*args, **kwargs | (dict(device='cpu') if 'device' in kwargs else {}))
        if is_cuda(target) == self.here(x): return self.put(y) if self.here(x) else y
        if y.data_ptr() == x.data_ptr(): y = y.clone()
        return self.put(y) if is_cuda(target) else y

    def __torch_function__(self, f, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(f, '__name__', str(f))
        if f == Tensor.device.__get__: return torch.device('cuda', 0) if self.here(args[0]) else f(*args)
        if f == Tensor.is_cuda.__get__: return self.here(args[0])
        if f is Tensor.cpu: return args[0].clone() if self.here(args[0]) else args[0]
        if f is Tensor.cuda: return self.put(args[0].clone())
        if f is Tensor.to: return self.moved(args[0], list(args[1:]), kwargs)
        if name == '_parse_to': return f(*args, **kwargs)
        given = tensors(args[0] if name == '__deepcopy__' else [args, kwargs])
        on = [self.here(t) for t in given]
        if f in (Tensor.numpy, Tensor.__array__) and on[0]: raise TypeError('numpy of a tensor on the imagined GPU')
        index_on_gpu = name == '__getitem__' and any(on[1:]) and not on[0]
        off = [t for t, o in zip(given, on) if not o and t.ndim and t.numel() and t.device.type != 'meta']
        if index_on_gpu or any(on) and off and name not in MAY_MIX | {'__getitem__'}: raise RuntimeError(
            f'{name}: tensors of two devices, {[(tuple(t.shape), "cuda" if o else "cpu") for t, o in zip(given[:4], on)]}')
        device = kwargs.get('device')
        if device is not None and is_cuda(device): return self.put(f(*args, **kwargs | dict(device='cpu')))
        result = f(*args, **kwargs)
        return self.put(result) if any(on) and device is None and name not in MAY_MIX else result


def learner(name='textures', of_each=12, bs=16, **kwargs):
    table = table_from(name)
    keys = ['split', 'label'] if table.split.ne('').any() else 'label'
    few = table.head(5*of_each) if name == 'mosaics' else table.groupby(keys).head(of_each)
    dls = table_dls(few.reset_index(drop=True), Preprocess(48), bs=bs, leaks='keep')
    learn = cnn_learner(dls.to(torch.device('cuda')), **kwargs).remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    return learn


def tuned(method='lp_ft', of_plan={}, **kwargs):
    "A learner after a plan of one epoch; `kwargs` are those of `learner`"
    learn = learner(**kwargs)
    learn.fine_tune(1, method=method, **of_plan)
    assert next(learn.cnn.parameters()).device.type == 'cuda'
    return learn


def answers():
    with tempfile.TemporaryDirectory() as folder:
        learn = tuned()
        images = list(learn.dls.table.image[:3])
        model = learn.save_bundle(Path(folder, 'model'))
        for kwargs in ({}, dict(mirrors=True), dict(precision='bf16')): Predictor(model, device='cuda', **kwargs)(images)
    shown = learn.why(images[0])
    faithfulness(learn.cnn, shown.pixels, shown.heat, 0)
    repr(learn.report()), learn.set_temperature(), learn.report(mirrors=True), learn.none_of_these(images)
    learn.robustness(), learn.cross_validate(3), learn.lr_find(num_it=5), learn.get_preds(), learn.predict(images[0])


def inspected():
    learn = learner()
    learn.inspect(), learn.compare(sizes=[32, 48], n=60), learn.by_stage(60)


TRAINED = dict(head_epochs=2, ema=.9, accumulate=2, clip=1., keep='best', patience=1)
RUNS = dict(
    default=tuned,
    top=lambda: tuned('top'), probe=lambda: tuned('probe'), gradual=lambda: tuned('gradual'),
    fastai=lambda: tuned('fastai'), auto=lambda: tuned('auto'),
    trained_head=lambda: tuned(of_plan=TRAINED),
    bf16=lambda: tuned(of_plan=dict(precision='bf16', frozen='bf16')), fp16=lambda: tuned(of_plan=dict(precision='fp16')),
    several_labels=lambda: tuned(name='mosaics').set_thresholds(),
    weighted=lambda: [tuned(balance=b) for b in ('loss', 'sampler', 'logits')],
    two_networks=lambda: tuned('solve', arch='efficientnet_lite0+efficientnet_lite2'),
    answers=answers, inspected=inspected)


def main():
    torch.cuda.synchronize, torch.cuda.is_bf16_supported = lambda *_: None, lambda *_, **__: True
    wanted = sys.argv[1:] or RUNS
    for name in wanted:
        with ImaginedGPU(): RUNS[name]()
    print(f'{len(wanted)} runs on an imagined GPU: no operation mixed devices')


if __name__ == '__main__': main()
