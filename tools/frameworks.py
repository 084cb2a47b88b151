"""Make the environment of another framework by one command, and run functions in it

usage: python tools/frameworks.py list
       python tools/frameworks.py make [torch keras mxnet]
       (both take --folder FOLDER; default $CNN_FINETUNE_FRAMEWORKS, else the user's cache folder)

`make` without names makes every environment whose packages this Python lacks.

The package imports none of these frameworks. `nbs/tutorials/four_frameworks.ipynb` uses this file."""
import argparse, inspect, json, os, re, subprocess, sys, tempfile, textwrap
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from packaging.requirements import Requirement
from platformdirs import user_cache_path
from cnn_finetune.core import InputError
from worker import read, write

VARIABLE = 'CNN_FINETUNE_FRAMEWORKS'
KERAS = 'keras==3.15.*'
ENVIRONMENTS = dict( # Name to what pip installs, besides safetensors
    torch=['torch>=2.9', KERAS],
    keras=['tensorflow-cpu==2.21.*', 'jax>=0.10', KERAS],
    mxnet=['mxnet==1.9.1', 'numpy==1.23.5'])
FRAMEWORKS = {'torch': 'torch', 'keras-torch': 'torch', 'keras-tensorflow': 'keras',
              'keras-jax': 'keras', 'tensorflow': 'keras', 'mxnet': 'mxnet'}
ONE_THREAD = dict(OMP_NUM_THREADS='1', TF_NUM_INTRAOP_THREADS='1', TF_NUM_INTEROP_THREADS='1',
    MXNET_CPU_WORKER_NTHREADS='1', NPROC='1',
    XLA_FLAGS='--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1')
QUIET = dict(TF_CPP_MIN_LOG_LEVEL='3', CUDA_VISIBLE_DEVICES='', PYTHONUTF8='1')
VERSIONS = '''import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try: found[name] = metadata.version(name)
    except metadata.PackageNotFoundError: pass
print(json.dumps(found))'''


class FrameworkError(RuntimeError):
    "A function failed in the other environment; the message is the framework's own"


def default_folder() -> Path: # One folder for all environments
    "Where the environments are"
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else user_cache_path('cnn_finetune')/'frameworks'


def environment_python(
    name:str, # A key of ENVIRONMENTS
    folder:Path=None, # Of all environments
) -> Path: # It need not exist
    "The Python of an environment"
    if name not in ENVIRONMENTS:
        raise InputError(f'environment: {name!r}; use {", ".join(ENVIRONMENTS)}')
    at = Path(folder or default_folder()).expanduser()/name
    return at/'Scripts'/'python.exe' if os.name == 'nt' else at/'bin'/'python'


def wrong_versions(
    name:str, # A key of ENVIRONMENTS
    python, # An interpreter
) -> list: # Sentences, empty if everything is there
    "What an interpreter lacks for an environment"
    needs = [Requirement(r) for r in ENVIRONMENTS[name] + ['safetensors']]
    found = _found(python, [r.name for r in needs])
    bad = [r for r in needs if not r.specifier.contains(found.get(r.name, ''), prereleases=True)
           or r.name not in found]
    return [f'{r.name} is {found.get(r.name, "missing")}, and {r} is needed' for r in bad]


def _found(python, names):
    if Path(python) != Path(sys.executable):
        try: out = subprocess.run([python, '-c', VERSIONS, *names], stdout=subprocess.PIPE, text=True)
        except OSError as e: raise InputError(f'{python}: does not run ({e.strerror}); delete the '
                                              'folder of this environment and make it again') from e
        return json.loads(out.stdout or '{}')
    return {d.metadata['Name']: d.version for d in map(_distribution, names) if d}


def _distribution(name):
    try: return metadata.distribution(name)
    except metadata.PackageNotFoundError: return None


def find_python(
    name:str, # A key of ENVIRONMENTS
    folder:Path=None, # Of all environments
) -> Path: # Of this process, if it holds all that is needed; else of the environment
    "An interpreter that has the framework; else an InputError that says how to get it"
    python = environment_python(name, folder)
    if not wrong_versions(name, sys.executable): return Path(sys.executable)
    make = f'run python tools/frameworks.py make {name}'
    if not python.exists(): raise InputError(f'{name}: no environment; {make}')
    wrong = wrong_versions(name, python)
    if wrong: raise InputError(f'{name}: {"; ".join(wrong)}; {make}')
    return python


def make(
    name:str, # A key of ENVIRONMENTS
    folder:Path=None, # Of all environments
) -> Path: # Its Python
    "Make an environment with `python -m venv` and pip, or complete one"
    python = environment_python(name, folder)
    at = python.parent.parent
    if at.exists() and not (at/'pyvenv.cfg').exists():
        raise InputError(f'{at}: is no virtual environment and is left as it is; give another --folder')
    if name == 'mxnet' and sys.version_info >= (3, 12):
        raise InputError('mxnet: 1.9.1 needs numpy 1.23.5, which has no wheel for Python 3.12 or '
                         'newer; run this command with Python 3.10 or 3.11')
    if not python.exists(): subprocess.run([sys.executable, '-m', 'venv', at], check=True)
    pip = [python, '-m', 'pip', 'install', '--quiet', *ENVIRONMENTS[name], 'safetensors']
    if subprocess.run(pip).returncode: raise InputError(f'{name}: pip failed; its message is above')
    return python


class Framework:
    "Functions that are written here and run in the environment of another framework"
    def __init__(self,
        name:str, # A key of FRAMEWORKS
        imports:str='', # Statements that run there first
        folder:Path=None, # Of all environments
    ):
        if name not in FRAMEWORKS:
            raise InputError(f'framework: {name!r}; use {", ".join(FRAMEWORKS)}')
        self.name, self.folder, self.process, self.missing = name, folder, None, None
        self.waiting = [dict(define=imports, file=f'<imports of {name}>')]
        self.wall = self.cpu = None # Seconds of the last call
        try: self.python = find_python(FRAMEWORKS[name], folder)
        except InputError as e: self.missing = str(e)

    def __repr__(self): return self.name

    def define(self,
        f, # A function that names only what is imported or defined there
    ): # The same function
        "Send a function's source to the framework, to be called as `framework.name(...)`"
        try: source = textwrap.dedent(inspect.getsource(f))
        except (OSError, TypeError) as e: raise InputError(
            f'{self.name}: {f!r} has no source to send; write it with def in a cell or a file') from e
        source = re.sub(r'\A(@.*\n)+', '', source)
        self.waiting.append(dict(define=source, file=f'<{f.__name__} in {self.name}>'))
        return f

    def __getattr__(self, name):
        if name.startswith('_'): raise AttributeError(name)
        return lambda *args, **kwargs: self._call(name, args, kwargs)

    def _call(self, name, args, kwargs):
        if self.missing: raise InputError(self.missing)
        if self.process is None: self._start()
        while self.waiting:
            self._ask(self.waiting[0])
            self.waiting.pop(0)
        reply = self._ask(dict(call=name, args=args, kwargs=kwargs))
        self.wall, self.cpu = reply['wall'], reply['cpu']
        return reply['value']

    def _start(self):
        self.scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.log = open(Path(self.scratch.name)/'log', 'w+', encoding='utf-8', errors='replace')
        env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'KERAS'))}
        env |= ONE_THREAD | QUIET | dict(KERAS_BACKEND=self.name.partition('-')[2] or 'torch')
        worker = [self.python, Path(__file__).with_name('worker.py'), self.scratch.name]
        self.process = subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, env=env, text=True, encoding='utf-8')

    def _ask(self, request):
        try:
            print(write(self.scratch.name, 'request', request), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError: line = ''
        except TypeError as e: raise InputError(
            f'{self.name}: {e}; send dicts, lists, text, numbers and arrays') from e
        if not line: raise FrameworkError(f'{self.name}: the process ended with '
                                          f'{self.process.wait()}. {self._last_words()}')
        reply = read(self.scratch.name, 'answer', line)
        if 'error' in reply: raise FrameworkError(f"{self.name}: {reply['error']}")
        return reply

    def _last_words(self):
        self.log.seek(0)
        return ''.join(self.log.readlines()[-1:]).strip()[-300:]

    def close(self):
        "End the process"
        if self.process is None: return
        with suppress(BrokenPipeError): self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.scratch.cleanup()
        self.process = None


def define(
    *frameworks:Framework, # Each gets the function
): # Decorator
    "Send a function to several frameworks"
    def send(f):
        for framework in frameworks: framework.define(f)
        return f
    return send


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('do', choices=['list', 'make'])
    parser.add_argument('names', nargs='*', help=f'of {", ".join(ENVIRONMENTS)}; default: all')
    parser.add_argument('--folder', type=Path, help=f'default: ${VARIABLE}, else the cache folder')
    args = parser.parse_args()
    failed = 0
    for name in args.names or ENVIRONMENTS:
        try: print(f'{name}: {found_or_made(name, args)}', flush=True)
        except InputError as e: failed, _ = 1, print(e, flush=True)
    return failed


def found_or_made(name, args):
    wanted = args.do == 'make' and (args.names or wrong_versions(name, sys.executable))
    return make(name, args.folder) if wanted else find_python(name, args.folder)


if __name__ == '__main__': sys.exit(main())
