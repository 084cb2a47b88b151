"""Run the checks of the project and count them. `.ci/run` calls this inside a virtual environment.

usage: python .ci/checks.py [--list] [--no-install] [CHECK ...]
"""
import argparse, importlib, json, os, re, subprocess, sys, tempfile, time, zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README, NBS = ROOT/'README.md', ROOT/'nbs'
NOTEBOOK_LIMIT = 400 * 1024  # bytes
HELP = 'import sys; from cnn_finetune.cli import make_parser; make_parser(); print(*sys.modules)'
SLOW = 'slow'                # the flag of cells that plain nbdev-test leaves out, and this file runs
LONGEST = ('18_tuning', '24_run', 'attack', '25_cli', '13_solve')  # the notebooks that run longest, longest first
PAUSES = (10, 60, None)      # seconds to wait after the first, second and last failure of an installation
STUDY = 'study'              # the flag of cells that train for many seeds: run by hand
ASSERTION = re.compile(r'\b(test_\w+\s*\(|expect_fail|assert\b|assert_\w+\s*\()')
MACHINE_PATH = re.compile(r'(?<![\w.-])/(?:work|root|home|tmp|mnt|Users)/[\w.-]+|\b[A-Z]:\\+Users\b')


class Failure(Exception):
    "A check did not hold; the message says where and why."


def sh(command, cwd=ROOT):
    "Run a shell command; return its output, or fail with the end of it."
    done = subprocess.run(['bash', '-c', command], cwd=cwd, text=True, errors='replace',
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Failure(f'`{command}` ended with {done.returncode}\n{done.stdout[-6000:]}')
    return done.stdout


def readme_command(extra):
    "The README's command that installs `extra`, as (pip part, the rest of the line)."
    for line in README.read_text(encoding='utf-8').splitlines():
        found = re.match(rf'\s*\$?\s*(pip install\b.*?\[{extra}\]\S*)\s*(?:&&\s*(.*))?$', line)
        if found:
            return found[1], (found[2] or '').strip()
    raise Failure(f'README.md has no line that begins `pip install` and names [{extra}]')


def notebooks():
    "The notebooks under nbs/, in reading order; names that begin with _ or . are scratch."
    found = [p for p in NBS.rglob('*.ipynb')
             if not any(part[0] in '._' for part in p.relative_to(NBS).parts)]
    return sorted(found)


def tracked():
    "The files that belong to the project: tracked, or new and not ignored."
    out = sh('git ls-files -z --cached --others --exclude-standard')
    return [ROOT/name for name in out.split('\0') if name and (ROOT/name).is_file()]


def changes():
    "What git sees as changed now."
    return sh('git status --porcelain'), sh('git diff')


def unchanged(command):
    "Run a command that must change no file."
    before = changes()
    sh(command)
    after = changes()
    if after != before:
        raise Failure(f'`{command}` changes files:\n{after[0]}{after[1][:4000]}')


def install(extra):
    "Install by the README's command; a package index that breaks off a download gets two more tries."
    command, _ = readme_command(extra)
    for pause in PAUSES:
        try:
            sh(command)
            break
        except Failure as failure:
            errors = [line for line in str(failure).splitlines() if 'ERROR' in line]
            said = '\n'.join(errors) or str(failure)
            if pause is None: raise Failure(f'`{command}` failed {len(PAUSES)} times\n{said}')
            print(f'pip failed, and is tried again in {pause} s: {said}', flush=True)
            time.sleep(pause)
    importlib.invalidate_caches()
    return command


def check_demo():
    "The README's demo command runs in an empty folder."
    _, command = readme_command('demo')
    if not command:
        raise Failure('the README line for [demo] has no command after &&')
    with tempfile.TemporaryDirectory() as folder:
        out = sh(command, cwd=folder)
    return command + '\n' + out.replace(folder, '.').strip()[-1500:]


def check_help():
    "`cnn_finetune --help` answers, and imports nothing large for it."
    sh('cnn_finetune --help')
    out = sh(f'python -c "{HELP}"').split()
    large = [m for m in ('torch', 'fastai', 'pandas', 'numpy') if m in out]
    if large:
        raise Failure(f'cnn_finetune --help imports {", ".join(large)}')
    return f'{len(out)} modules imported'


def check_export():
    "The package is what the notebooks export."
    unchanged('nbdev-export')


def check_clean():
    "The notebooks are stored clean."
    unchanged('nbdev-clean')


def check_readme():
    "README.md and CONTRIBUTING.md are their notebooks rendered."
    sh('python .ci/readme.py')


def check_front():
    "The headline and the figure of the front page are the stored result of the benchmark."
    return sh('python .ci/front.py').strip()


def check_gpu():
    "No operation mixes a tensor of the CPU with one of an imagined GPU."
    return sh('OMP_NUM_THREADS=1 python tools/imagined_gpu.py').strip() # Threads of a busy machine wait for each other


def check_wheel():
    "The wheel holds every module, and works outside the clone."
    with tempfile.TemporaryDirectory() as folder:
        sh(f'pip wheel . --no-deps --quiet --wheel-dir "{folder}"')
        wheel = next(Path(folder).glob('*.whl'))
        installed = Path(folder)/'installed'
        zipfile.ZipFile(wheel).extractall(installed)
        missing = [path.name for path in tracked()
                   if path.parent == ROOT/'cnn_finetune' and not (installed/path.relative_to(ROOT)).is_file()]
        if missing: raise Failure(f'{wheel.name} lacks {", ".join(missing)}')
        code = 'import cnn_finetune.all as a; from cnn_finetune.cli import main; print(a.__file__); main(["--help"])'
        said = sh(f"PYTHONPATH='{installed}' python -c '{code}'", cwd=folder)
        if str(installed) not in said: raise Failure(f'the package was not taken from the wheel:\n{said}')
        return wheel.name


def check_size():
    "No notebook is over the limit."
    large = [f'{p.relative_to(ROOT)}: {p.stat().st_size // 1024} KiB' for p in notebooks()
             if p.stat().st_size > NOTEBOOK_LIMIT]
    if large:
        raise Failure('over 400 KiB: ' + ', '.join(large))
    return f'{len(notebooks())} notebooks'


def text_of(path):
    "The text of a file; of a notebook, without its pictures; of a binary file, nothing."
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError:
        return ''
    if path.suffix != '.ipynb':
        return text
    notebook = json.loads(text)
    for cell in notebook['cells']:
        for output in cell.get('outputs', []):
            data = output.get('data', {})
            output['data'] = {k: v for k, v in data.items() if not k.startswith('image/')}
    return json.dumps(notebook, ensure_ascii=False, indent=0)


def check_paths():
    "No path of a machine stands in a file of the project."
    found = [f'{path.relative_to(ROOT)}: {match[0]}' for path in tracked()
             for match in MACHINE_PATH.finditer(text_of(path))]
    if found:
        raise Failure('paths of a machine:\n' + '\n'.join(found[:30]))
    return f'{len(tracked())} files'


def check_site():
    "The site builds without a warning; links resolve, formulas typeset, no other host is asked."
    if sys.version_info < (3, 11):
        return 'not run: smalldocs needs Python 3.11'
    return sh('python .ci/site.py').strip().splitlines()[-1]


def check_notebook(path):
    "All cells of a notebook but studies run, slow ones too; say how many ran and how many assert."
    from nbdev.test import nb_test_cells
    cells = nb_test_cells(path, skip_flags=[SLOW, STUDY], force_flags=[SLOW])
    everything = nb_test_cells(path, skip_flags=[], force_flags=[])
    out = sh(f'OMP_NUM_THREADS=1 nbdev-test "{path}" --flags {SLOW}')
    if 'Success.' not in out:
        raise Failure(f'nbdev-test passed without running the notebook:\n{out}')
    slow = sum(SLOW in (cell.directives_ or {}) for cell in cells)
    asserting = sum(bool(ASSERTION.search(cell.source)) for cell in cells)
    left = len(everything) - len(cells)
    studies = f'; {left} studies left out' if left else ''
    return f'{len(cells)} cells ran ({slow} slow), {asserting} of them assert{studies}'


def check_left():
    "The tests left no file behind and changed none."
    out = sh('git status --porcelain')
    if out != CHANGED_AT_START:
        raise Failure(f'git status before:\n{CHANGED_AT_START}after:\n{out}')


def checks(install_too):
    "Every check as (name, function), in the order in which they run."
    steps = []
    if install_too: steps += [('install-demo', lambda: install('demo'))]
    steps += [('demo', check_demo), ('help', check_help)]
    if install_too: steps += [('install-dev', lambda: install('dev'))]
    steps += [('export', check_export), ('clean', check_clean), ('readme', check_readme),
              ('front', check_front), ('gpu', check_gpu), ('wheel', check_wheel), ('size', check_size),
              ('paths', check_paths), ('site', check_site)]
    return steps


def notebook_checks():
    "One check per notebook; the longest begin first, so that the processor's cores end together."
    return [(path.relative_to(ROOT).as_posix(), lambda path=path: check_notebook(path))
            for path in sorted(notebooks(), key=_by_length)]


def _by_length(path):
    return LONGEST.index(path.stem) if path.stem in LONGEST else len(LONGEST)


def run(name, function):
    "Run one check and print its line: the result, the time, the detail. True if it holds."
    start = time.perf_counter()
    try:
        passed, detail = True, function() or ''
    except Exception as error:
        kind = '' if isinstance(error, Failure) else f'{type(error).__name__}: '
        passed, detail = False, f'{kind}{error}'
    seconds = time.perf_counter() - start
    print(f'{"pass" if passed else "FAIL"}  {name}  {seconds:.1f} s  {detail}'.rstrip(), flush=True)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='CHECK', help='run only these checks')
    parser.add_argument('--no-install', action='store_true', help='take the environment as it is')
    parser.add_argument('--list', action='store_true', help='print the names of the checks')
    args = parser.parse_args()
    steps, pages, last = checks(not args.no_install), notebook_checks(), [('left', check_left)]
    names = [name for name, _ in steps + pages + last]
    unknown = set(args.names) - set(names)
    if unknown:
        parser.error(f'no check is called {", ".join(sorted(unknown))}; see --list')
    if args.list:
        return print('\n'.join(names))
    wanted = args.names or names
    steps, pages, last = ([c for c in part if c[0] in wanted] for part in (steps, pages, last))
    results = []
    for name, function in steps:
        results.append(run(name, function))
        if name.startswith('install') and not results[-1]:
            print(f'the environment is not whole, so nothing else ran\n{results.count(True)} passed, 1 failed')
            sys.exit(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results += pool.map(lambda check: run(*check), pages)
    results += [run(*check) for check in last]
    failed = results.count(False)
    print(f'{results.count(True)} passed, {failed} failed')
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    CHANGED_AT_START = sh('git status --porcelain')
    main()
