"""Build the site into _docs/ and check it.

usage: python .ci/site.py [--quarto]

nbdev processes the notebooks, with the processors that pyproject.toml names in doc_procs. Without Quarto, smalldocs
turns them into pages, from the same _quarto.yml; with --quarto, `quarto render` does, its messages are shown, and a
warning counts as a problem. The two name pages alike: 08_data.ipynb becomes data.html. Then the pages are checked:
every link, anchor and image resolves, no anchor is there twice, nothing is requested from another host, and KaTeX
typesets every formula.
"""
import json, os, posixpath, re, shutil, subprocess, sys, tempfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from nbdev.config import get_config, nbpath2html
from nbdev.quarto import _fix_quarto_nav, refresh_quarto_yml
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parent.parent
NUMBERED_LINK = re.compile(r'(\]\((?:[\w.-]+/)*)\d+[a-zA-Z0-9]*_([\w-]+\.ipynb)')
NUMBERED_FILE = re.compile(r'(?<![\w-])\d+[a-zA-Z0-9]*_([\w-]+\.ipynb)')
NESTED_LINK = re.compile(r'\[\[`([^`]+)`\]\([^)]*\)[^\]]*\]\(')
WARNING = re.compile(r'\bWARN(ING)?\b|\bERROR\b')
COLOR = re.compile(r'\x1b\[[0-9;]*m')
KATEX = re.compile(r'https://[^"]*/katex@[^"/]*/dist/(?:contrib/)?(?=[\w.-]+\.(?:js|css)")')
WEB_FONT = re.compile(r'@import\s+url\((?:https?:)?//[^)]*\)\s*;?|@import\s*"(?:https?:)?//[^"]*"\s*;?')
CSS_URL = re.compile(r'url\(\s*["\']?([^"\')]+)["\']?\s*\)|@import\s*["\']([^"\']+)["\']')
# What a browser fetches by itself, as tag and attribute; of links only those with such a rel.
FETCHED = {('script', 'src'), ('img', 'src'), ('source', 'src'), ('iframe', 'src'), ('embed', 'src'), ('link', 'href')}
FETCHED_RELS = {'stylesheet', 'icon', 'preload', 'modulepreload', 'prefetch', 'manifest'}
TYPESET = """
const katex = require(process.argv[1] + '/katex.min.js');
const found = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const bad = found.flatMap(({page, tex, display}) => {
  try { katex.renderToString(tex, {displayMode: display, throwOnError: true}); return []; }
  catch (e) { return [`${page}: ${e.message}`]; }
});
console.log(JSON.stringify(bad));
"""


# ---- the stand-in for Quarto

def settings(stage, out):
    "_quarto.yml and nbdev's nbdev.yml as one, in the words of smalldocs."
    config = yaml.safe_load((stage/'_quarto.yml').read_text(encoding='utf-8'))
    added = yaml.safe_load((ROOT/'nbs/nbdev.yml').read_text(encoding='utf-8'))
    config.pop('metadata-files')
    html = config['format']['html']
    width = html.pop('grid')['body-width']
    html.pop('html-math-method')
    html['theme'] = {mode: names[0] for mode, names in html['theme'].items()}
    config['format'] = {'html': html | {'max-width': width}}
    config['website'].update({k: v for k, v in added['website'].items() if v not in ('', '/')})
    config['project']['output-dir'] = str(out)
    return NUMBERED_FILE.sub(r'\1', yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def page(text):
    "A processed notebook for smalldocs: links as pages are named, and no `output-file`."
    text = NUMBERED_LINK.sub(r'\1\2', text)
    if site := get_config().doc_url.rstrip('/'):
        text = text.replace(f']({site}/', '](/')  # links to the hosted site stay inside this one
    notebook = json.loads(text)
    for cell in notebook['cells']:
        if cell['cell_type'] == 'raw':
            cell['source'] = re.sub(r'(?m)^output-file:.*\n', '', ''.join(cell['source']))
    return json.dumps(notebook, ensure_ascii=False)


def prepare(processed, stage, out):
    "Copy the processed notebooks to `stage`, named and linked as their pages will be."
    shutil.copytree(processed, stage, ignore=shutil.ignore_patterns('.quarto', '_docs', '_site'))
    (stage/'_quarto.yml').write_text(settings(stage, out), encoding='utf-8')
    for path in sorted(stage.rglob('*.ipynb')):
        text = page(path.read_text(encoding='utf-8'))
        path.unlink()
        nbpath2html(path).with_suffix('.ipynb').write_text(text, encoding='utf-8')


def own_files(out):
    "Point the pages of smalldocs to the KaTeX of the site, and its themes to the fonts of the system."
    for path in out.rglob('*.html'):
        katex = posixpath.relpath('katex', path.parent.relative_to(out).as_posix())
        path.write_text(KATEX.sub(katex + '/', path.read_text(encoding='utf-8')), encoding='utf-8')
    for path in (out/'site_libs').rglob('*.css'):
        path.write_text(WEB_FONT.sub('', path.read_text(encoding='utf-8')), encoding='utf-8')


def with_smalldocs(processed, out):
    "Build with smalldocs; return its warnings."
    from smalldocs.site import build
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)/'nbs'
        prepare(processed, stage, out)
        problems = build(stage, quiet=True).warnings + list(markdown_problems(stage))
    own_files(out)
    return problems


def markdown_problems(stage):
    "Markdown that only Quarto reads, such as cross-references, and links that nbdev broke by a link inside."
    from smalldocs.check import scan
    for path in sorted(stage.rglob('*.ipynb')):
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            if cell['cell_type'] != 'markdown': continue
            text = ''.join(cell['source'])
            for link in NESTED_LINK.findall(text):
                yield f'{path.name}: nbdev links names in backticks itself; take your link away from {link}'
            text = re.sub(r'`[^`\n]*`', '', text)
            for line, message in scan(text):
                yield f'{path.name}: {message}: {text.splitlines()[line - 1]}'


# ---- Quarto

def with_quarto(processed, out):
    "Build with Quarto, and show what it says; return its warnings."
    shutil.rmtree(processed/out.name, ignore_errors=True)
    command = ['quarto', 'render', str(processed), '--no-cache', '--no-execute']
    problems = []
    with subprocess.Popen(command, text=True, errors='replace', stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            print(line, end='', flush=True)
            if WARNING.search(COLOR.sub('', line)): problems.append(f'quarto: {line.strip()}')
    if process.returncode: sys.exit(f'quarto render ended with {process.returncode}')
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(processed/out.name, out)
    _fix_quarto_nav(out)  # without it a script of Quarto breaks the links to index.html.md; nbdev-docs does the same
    return problems


# ---- what every page must keep

class Page(HTMLParser):
    "The ids, link targets, fetched addresses, style sheets and formulas of one built page."
    def __init__(self, text):
        super().__init__()
        self.ids, self.targets, self.fetched, self.styles, self.formulas = Counter(), [], [], [], []
        self.style, self.formula = False, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = {k: v or '' for k, v in attrs}
        classes = attrs.get('class', '').split()
        names = [attrs.get('id'), attrs.get('name') if tag == 'a' else None]
        self.ids.update({name for name in names if name})
        self.targets += [attrs[k] for k in ('href', 'src') if attrs.get(k)]
        rels = set(attrs.get('rel', '').split())
        self.fetched += [v for k, v in attrs.items() if (tag, k) in FETCHED and (tag != 'link' or rels & FETCHED_RELS)]
        self.style = tag == 'style'
        if 'style' in attrs: self.styles.append(attrs['style'])
        if tag == 'span' and 'math' in classes: self.formula = dict(tex='', display='display' in classes)

    def handle_endtag(self, tag):
        self.style = False
        if tag == 'span' and self.formula:
            self.formulas.append(self.formula)
            self.formula = None

    def handle_data(self, data):
        if self.style: self.styles.append(data)
        if self.formula: self.formula['tex'] += data


def dead_links(out, pages):
    "Targets inside the site that do not exist, and how many were looked at."
    dead, count = [], 0
    for path, this in pages.items():
        for target in this.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc: continue
            count += 1
            goal = Path(os.path.normpath(path.parent/unquote(url.path))) if url.path else path
            if goal.is_dir(): goal = goal/'index.html'
            anchor = unquote(url.fragment)
            missing = not goal.is_relative_to(out) or not goal.exists()
            if missing or (anchor and goal in pages and anchor not in pages[goal].ids):
                dead.append(f'{path.relative_to(out)}: no such target: {target}')
    return sorted(set(dead)), count


def double_anchors(out, pages):
    "Anchors that a page has twice, so that a link may lead to the wrong place."
    for path, this in pages.items():
        for anchor, count in this.ids.items():
            if count > 1: yield f'{path.relative_to(out)}: {count} places are called #{anchor}'


def css_targets(text):
    "The addresses that a style sheet names."
    return [a or b for a, b in CSS_URL.findall(text) if not (a or b).startswith(('data:', '#'))]


def is_foreign(target): return bool(urlsplit(target).netloc)


def foreign(out, pages):
    "What a browser would fetch from another host, and files that style sheets name and the site lacks."
    for path, this in pages.items():
        for target in filter(is_foreign, this.fetched + css_targets('\n'.join(this.styles))):
            yield f'{path.relative_to(out)}: asks another host for {target}'
    for path in out.rglob('*.css'):
        for target in css_targets(path.read_text(encoding='utf-8')):
            if is_foreign(target): yield f'{path.relative_to(out)}: asks another host for {target}'
            elif not (path.parent/unquote(urlsplit(target).path)).exists():
                yield f'{path.relative_to(out)}: no such file: {target}'


def untypeset(out, pages):
    "Formulas that the KaTeX of the site refuses, pages that do not load it, and how many formulas there are."
    formulas, problems = [], []
    for path, this in pages.items():
        name = path.relative_to(out).as_posix()
        loaded = {Path(urlsplit(t).path).name for t in this.fetched}
        if this.formulas and not {'katex.min.js', 'katex.min.css'} <= loaded:
            problems.append(f'{name}: {len(this.formulas)} formulas, but no KaTeX')
        formulas += [dict(page=name, display=f['display'], tex=re.sub(r'^\s*\\[(\[]|\\[)\]]\s*$', '', f['tex']))
                     for f in this.formulas]
    if not shutil.which('node'): return problems, f'{len(formulas)} formulas, not typeset: no node here'
    done = subprocess.run(['node', '-e', TYPESET, str(out/'katex')], input=json.dumps(formulas), text=True,
                          capture_output=True, check=True)
    return problems + json.loads(done.stdout), f'{len(formulas)} formulas typeset'


def main():
    os.chdir(ROOT)
    out = get_config().doc_path.resolve()
    refresh_quarto_yml()
    processed = proc_nbs(n_workers=2, force=True)
    problems = (with_quarto if '--quarto' in sys.argv[1:] else with_smalldocs)(processed, out)
    pages = {p.resolve(): Page(p.read_text(encoding='utf-8')) for p in out.rglob('*.html')}
    dead, links = dead_links(out, pages)
    formula_problems, formulas = untypeset(out, pages)
    problems += dead + list(double_anchors(out, pages)) + list(foreign(out, pages)) + formula_problems
    print('\n'.join(problems))
    print(f'{len(pages)} pages, {links} links inside the site, {formulas}, {len(problems)} problems')
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
