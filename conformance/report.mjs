// docs/conformance.md: Larder beside the others, and why each test that does not pass does not.
import fs from 'node:fs'

const row = cells => `| ${cells.join(' | ')} |`

export function write (file, { date, version, suiteName, runs, expected, peers }) {
  const [first] = runs
  const { required, optimal, check } = first.summary.counts
  const lines = [
    '# Conformance',
    '',
    '<!-- Written by `make conformance`; edit conformance/report.mjs, expected.json or peers.json instead. -->',
    '',
    `\`make conformance\` runs the public HTTP cache test suite (${suiteName}) through real Envoy with two workers on the`,
    `strict profile \`envoy/filters/rfc9111.json\`, on ${runs.map(run => run.store).join(' and on ')}. Last run: ${date}, Larder ${version}.`,
    '',
    row(['cache', 'required', 'optimal', 'checks "yes"']),
    row(['---', '---', '---', '---']),
    ...runs.map(run => {
      const { required, optimal, check } = run.summary.counts
      return row([`**Larder ${version}, ${run.store}**`, ...[required, optimal, check].map(c => `**${c.pass}/${c.total}**`)])
    }),
    ...peers.npm.map(peer => row([peer.name, `${peer.required}/${required.total}`, `${peer.optimal}/${optimal.total}`, `${peer.check}/${check.total}`])),
    '',
    peers.note,
    '',
    '## The maintained suite',
    '',
    peers.maintained_note,
    '',
    row(['cache', 'required', 'optimal']),
    row(['---', '---', '---']),
    ...peers.maintained.map(peer => row([peer.name, peer.required, peer.optimal])),
    '',
    '## What does not pass, and why',
    '',
    'A test that fails without being in this list fails the build.',
    '',
    row(['test', 'kind', 'why']),
    row(['---', '---', '---']),
    ...Object.entries(expected.not_passing).map(([id, { kind, why }]) => row([`\`${id}\``, kind, why])),
    '',
    'Of the maintained suite:',
    '',
    row(['test', 'kind', 'why']),
    row(['---', '---', '---']),
    ...Object.entries(expected.not_passing_maintained).map(([id, { kind, why }]) => row([`\`${id}\``, kind, why])),
    ''
  ]
  fs.writeFileSync(file, lines.join('\n'))
}
