// Reads a Mermaid diagram, writes its SVG. The argument is the folder of the npm packages.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const main = join(process.argv[2], 'beautiful-mermaid', 'dist', 'index.js')
const { renderMermaidSVG } = await import(pathToFileURL(main).href)
const code = readFileSync(0, 'utf8').replace(/^\s*%%.*\n/gm, '')
process.stdout.write(renderMermaidSVG(code, { bg: 'var(--course-surface)', fg: 'var(--course-text)', transparent: true }))
