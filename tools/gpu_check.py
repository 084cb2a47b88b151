"""Compare a GPU with the CPU beside it: the pass, the solved head, a phase after it, in float32 and bfloat16.

    python tools/gpu_check.py [--images 256] [--size 224] [--out check.json]

Prints one JSON object: what agrees within rounding, images a second, seconds of each part. It is sized
for less than five minutes, and needs no images: they are made from one seed. Without a GPU it says so and ends with code 2.
"""
import argparse, json, os, platform, sys, tempfile, time, warnings
from pathlib import Path

warnings.filterwarnings('ignore')
os.environ.setdefault('CNN_FINETUNE_PROFILE', 'off')
import numpy as np, torch
from PIL import Image
from fastai.callback.progress import ProgressCallback
from cnn_finetune.all import Predictor, cnn_learner, image_dls
from cnn_finetune.frozen import FrozenFunction


def photographs(folder, n, side, classes=4):
    "Write `n` images of noise over a stripe pattern whose direction is the class."
    rng, y, x = np.random.default_rng(0), *np.mgrid[:side, :side]/side
    for i in range(n):
        c = i % classes
        angle = np.pi*c/classes
        wave = np.sin(40*(x*np.cos(angle) + y*np.sin(angle)) + rng.uniform(0, 6))
        pixels = 128 + 60*wave[..., None] + rng.normal(0, 40, (side, side, 3))
        file = Path(folder, f'class{c}', f'{i}.png')
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)


def timed(f, device, turns=3):
    "The answer and the least of the seconds of a call."
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        answer = f()
        if device == 'cuda': torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return answer, min(seconds)


def passes(net, x):
    "The frozen body on each device and in each precision: features, images a second."
    found = {}
    for device in ('cpu', 'cuda'):
        net, x = net.to(device), x.to(device)
        for precision in ('float32', 'bf16'):
            body = FrozenFunction(net.below('head'), x[:1], precision)
            f, s = timed(lambda: torch.cat([body(part) for part in x.split(64)]), device)
            found[device, precision] = f.float().cpu(), len(x)/s
    return found


def apart(a, b): return float((a - b).norm()/b.norm())


def trained(photos, device, **given):
    "A solved head and a phase after it: the learner, and seconds."
    dls = image_dls(photos, size=given.pop('size'), bs=32, seed=0, flip=False)
    learn = cnn_learner(dls.to(torch.device(device)), seed=0).remove_cb(ProgressCallback)
    start = time.perf_counter()
    with learn.no_logging(): learn.fine_tune(2, method='top', **given)
    if device == 'cuda': torch.cuda.synchronize()
    return learn, time.perf_counter() - start


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument('--images', type=int, default=256)
    options.add_argument('--size', type=int, default=224)
    options.add_argument('--out')
    o = options.parse_args()
    if not torch.cuda.is_available():
        print('gpu_check: no CUDA device here; nothing was run')
        return 2
    report = dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__, cpu=platform.machine(),
                  images=o.images, size=o.size)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, 'photos')
        photographs(photos, o.images, o.size)
        dls = image_dls(photos, size=o.size, bs=32, seed=0, flip=False)
        learn = cnn_learner(dls, seed=0)
        x = torch.cat([b[0] for b in dls.valid])
        found = passes(learn.cnn.eval(), x)
        exact = found['cpu', 'float32'][0]
        report['pass'] = {f'{d} {p}': dict(images_per_second=round(r, 1), apart_from_cpu_float32=apart(f, exact))
                          for (d, p), (f, r) in found.items()}
        report['phases'] = {}
        for device, precision in (('cpu', 'float32'), ('cuda', 'float32'), ('cuda', 'bf16')):
            learn, seconds = trained(photos, device, size=o.size, precision=precision)
            model = learn.save_bundle(Path(folder, f'bundle-{device}-{precision}'))
            files = sorted(photos.glob('class*/*.png'))
            files = files[::max(1, len(files)//32)] # Of all classes
            answers = [Predictor(model, device=d, precision=p)(files) for d, p in
                       (('cpu', 'float32'), ('cuda', 'float32'), ('cuda', 'bf16'))]
            probs = [np.array([[a.probabilities[c] for c in learn.dls.vocab] for a in some]) for some in answers]
            report['phases'][f'{device} {precision}'] = dict(
                seconds=round(seconds, 2), leave_one_out=float(learn.history.rows[0]['leave_one_out']),
                accuracy=float(learn.report().accuracy),
                bundle_cuda_apart=float(np.abs(probs[1] - probs[0]).max()),
                bundle_bf16_apart=float(np.abs(probs[2] - probs[0]).max()),
                bundle_same_labels=[sum(a.label == b.label for a, b in zip(answers[0], other)) for other in answers[1:]])
    text = json.dumps(report, indent=1)
    print(text)
    if o.out: Path(o.out).write_text(text + '\n', encoding='utf-8')


if __name__ == '__main__': sys.exit(main())
