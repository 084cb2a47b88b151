"""README.md is nbs/index.ipynb rendered: check that the two agree, or write it.

usage: python .ci/readme.py [--write]
"""
import difflib, posixpath, re, sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
INDEX, README = ROOT/'nbs/index.ipynb', ROOT/'README.md'
DIRECTIVE = re.compile(r'^#\|\s*([\w-]+):?\s*(.*)$')
LINK = re.compile(r'(\]\()(?!\w+:|#|/)([^)\s]+)')  # the target of a relative Markdown link


def directives(cell):
    "The `#|` lines at the top of a cell as a dict, and the source without them."
    found, lines = {}, cell.source.splitlines()
    while lines and (match := DIRECTIVE.match(lines[0])):
        found[match[1]] = match[2].strip()
        lines.pop(0)
    return found, '\n'.join(lines)


def shown(notebook):
    "The notebook as its readers see it: hidden cells and directives left out."
    cells = []
    for cell in notebook.cells:
        found, cell.source = directives(cell)
        hidden = {'hide', 'default_exp', 'export', 'exporti'} & set(found) and cell.cell_type == 'code'
        if hidden or found.get('include') == 'false' or cell.cell_type == 'raw': continue
        if found.get('output') == 'false': cell.outputs = []
        cells.append(cell)
    notebook.cells = cells
    return notebook


def from_the_top(match):
    "A link written for nbs/, as it has to stand in a file above it."
    return match[1] + posixpath.normpath(posixpath.join('nbs', match[2]))


def render():
    "The text of README.md."
    notebook = shown(nbformat.read(INDEX, as_version=4))
    # nbdev-clean drops the language; nbconvert names the code blocks by it.
    notebook.metadata.language_info = {'name': 'python'}
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    if resources.get('outputs'):
        sys.exit('nbs/index.ipynb stores a picture as an output, which README.md cannot show: '
                 'save it as a file and link to it')
    text = LINK.sub(from_the_top, text)
    text = '\n'.join(line.rstrip() for line in text.splitlines())
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


def main():
    text = render()
    if '--write' in sys.argv[1:]:
        return README.write_text(text, encoding='utf-8', newline='\n')
    now = README.read_text(encoding='utf-8') if README.exists() else ''
    if now != text:
        diff = difflib.unified_diff(now.splitlines(), text.splitlines(), 'README.md', 'nbs/index.ipynb',
                                    lineterm='')
        sys.exit('\n'.join(['README.md is not nbs/index.ipynb rendered; run python .ci/readme.py --write',
                            *diff]))


if __name__ == '__main__':
    main()
