#!/usr/bin/env bash
# Take KaTeX, which typesets the formulas of the site, from its npm package: bash .ci/katex.sh 0.19.1
#
# Kept are the style sheet, the two scripts and the woff2 fonts, which every browser of today reads; the links of
# the style sheet to the other font files are cut.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=${1:?give a version of katex}
katex=$PWD/nbs/katex

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
(cd "$scratch" && npm pack --silent "katex@$version" && tar xzf katex-*.tgz)

rm -rf "$katex"
mkdir -p "$katex/fonts"
cd "$scratch/package"
cp LICENSE dist/katex.min.js dist/contrib/auto-render.min.js "$katex"
cp dist/fonts/*.woff2 "$katex/fonts"
sed -E 's/,url\([^)]*\.(woff|ttf)\) format\("[^"]*"\)//g' dist/katex.min.css > "$katex/katex.min.css"
printf 'KaTeX %s, MIT licence (LICENSE), from the npm package katex by .ci/katex.sh.\n' "$version" > "$katex/VERSION"
