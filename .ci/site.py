"""Build the site into _docs/ without Quarto, from the same _quarto.yml, and check its links.

usage: python .ci/site.py

nbdev processes the notebooks as it does for Quarto; smalldocs turns them into pages. The two name pages
alike: 04_data.ipynb becomes data.html. Where Quarto is installed, nbdev-docs builds the same site.
"""
import json, os, re, shutil, sys, tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from nbdev.config import get_config, nbpath2html
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from smalldocs.check import scan
from smalldocs.site import build

ROOT = Path(__file__).resolve().parent.parent
NUMBERED_LINK = re.compile(r'(\]\((?:[\w.-]+/)*)\d+[a-zA-Z0-9]*_([\w-]+\.ipynb)')
NUMBERED_FILE = re.compile(r'(?<![\w-])\d+[a-zA-Z0-9]*_([\w-]+\.ipynb)')
NESTED_LINK = re.compile(r'\[\[`([^`]+)`\]\([^)]*\)[^\]]*\]\(')
SOURCE_LINK = re.compile(r'\[source\]\(/blob/[^)]*\)\{[^}]*\}')  # what nbdev writes when no repository is set


def settings(stage, out):
    "_quarto.yml and nbdev's nbdev.yml as one, without what smalldocs does not read."
    config = yaml.safe_load((stage/'_quarto.yml').read_text(encoding='utf-8'))
    added = yaml.safe_load((ROOT/'nbs/nbdev.yml').read_text(encoding='utf-8'))
    config.pop('metadata-files')
    html = config['format']['html']
    config['format'] = {'html': {k: v for k, v in html.items() if k != 'keep-md'}}
    config['website'].update({k: v for k, v in added['website'].items() if v not in ('', '/')})
    config['project']['output-dir'] = str(out)
    return NUMBERED_FILE.sub(r'\1', yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def page(text):
    "A processed notebook for smalldocs: links as pages are named, no `output-file`, no dead source link."
    text = SOURCE_LINK.sub('', NUMBERED_LINK.sub(r'\1\2', text))
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


def markdown_problems(stage):
    "Markdown that only Quarto reads, such as cross-references, and links that nbdev broke by a link inside."
    for path in sorted(stage.rglob('*.ipynb')):
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            if cell['cell_type'] != 'markdown': continue
            text = ''.join(cell['source'])
            for link in NESTED_LINK.findall(text):
                yield f'{path.name}: nbdev links names in backticks itself; take your link away from {link}'
            text = re.sub(r'`[^`\n]*`', '', text)
            for line, message in scan(text):
                yield f'{path.name}: {message}: {text.splitlines()[line - 1]}'


class Page(HTMLParser):
    "The ids and the link targets of one built page."
    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ('id', 'name') if attrs.get(k)}
        self.targets += [attrs[k] for k in ('href', 'src') if attrs.get(k)]


def dead_links(out):
    "Targets inside the site that do not exist, and how many were looked at."
    pages = {p.resolve(): Page(p.read_text(encoding='utf-8')) for p in out.rglob('*.html')}
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
                dead.append(f'{path.relative_to(out)}: {target}')
    return sorted(set(dead)), len(pages), count


def main():
    os.chdir(ROOT)
    out = get_config().doc_path.resolve()
    refresh_quarto_yml()
    processed = proc_nbs(n_workers=2, force=True)
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)/'nbs'
        prepare(processed, stage, out)
        problems = build(stage, quiet=True).warnings + list(markdown_problems(stage))
    dead, pages, count = dead_links(out)
    problems += [f'no such target: {d}' for d in dead]
    print('\n'.join(problems))
    print(f'{pages} pages, {count} links inside the site, {len(problems)} problems')
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
