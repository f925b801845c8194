#!/usr/bin/env node
// Runs the public HTTP cache test suite against Larder and compares with what is expected.
//
// usage: conformance.mjs [--check] [--store memory|redis|both] [--suite FOLDER] [--only id,id] [--verbose]
//   --check    do not write docs/conformance.md
//   --suite    another version of the suite (a checkout of http-tests/cache-tests); compared with not_passing_maintained
//   --verbose  list every required and optimal test that does not pass, expected or not
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { freePort, listening, scratch, start, stopAll } from './processes.mjs'
import { write } from './report.mjs'
import { Suite, oneLine } from './suite.mjs'

const here = path.dirname(fileURLToPath(import.meta.url))
const root = path.dirname(here)
// The suite's margins are a second: a machine that stalls longer flips a test, so only what fails again counts.
const ATTEMPTS = 3

const { values: options } = parseArgs({
  options: {
    check: { type: 'boolean', default: false },
    store: { type: 'string', default: 'both' },
    suite: { type: 'string' },
    only: { type: 'string' },
    verbose: { type: 'boolean', default: false }
  }
})

async function startOrigin (suite) {
  const port = await freePort()
  const env = { ...process.env, npm_config_protocol: 'http', npm_config_port: String(port), npm_config_pidfile: path.join(scratch(), 'pid') }
  const args = ['--no-warnings', '--import', path.join(here, 'loopback.mjs'), suite.server]
  start(process.execPath, args, { cwd: suite.folder, env }, () => false).catch(fail)
  await listening(port)
  return port
}

async function startRedis () {
  const port = await freePort()
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  await start('redis-server', args, { cwd: scratch() }, output => output.includes('Ready to accept connections'))
  return `redis://127.0.0.1:${port}`
}

async function startLarder (origin, redis) {
  const port = await freePort()
  const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target')
  const args = ['run', '--port', String(port), '--origins', `127.0.0.1:${origin}`, '--health-path', '',
    '--config', 'envoy/filters/rfc9111.json', '--workers', '2', '--custom-methods']
  const env = { ...process.env, REDIS_URL: redis ?? '' }
  await start(path.join(target, 'release/larder'), args, { cwd: root, env }, output => output.includes('Larder is ready'))
  return `http://127.0.0.1:${port}`
}

async function runOn (store, suite, expected, only) {
  console.log(`· ${store}: starting the suite's origin, ${store === 'redis' ? 'Redis, ' : ''}the sidecar and Envoy`)
  const origin = await startOrigin(suite)
  const url = await startLarder(origin, store === 'redis' ? await startRedis() : undefined)
  console.log(`· ${store}: ${only ? only.size : suite.tests.size} tests`)
  let results = await suite.run(url, only)
  const unexpected = () => suite.summary(results).open.filter(test => test.verdict !== 'not run' && !(test.id in expected))
  for (let attempt = 2; attempt <= ATTEMPTS && unexpected().length; attempt++) {
    const again = suite.withDependencies(unexpected().map(test => test.id))
    console.log(`· ${store}: ${unexpected().map(test => test.id).join(', ')}: once more`)
    results = { ...results, ...await suite.run(url, again) }
  }
  await stopAll()
  const summary = suite.summary(results)
  console.log(`${store}: ${oneLine(summary.counts)}`)
  return { store, summary, unexpected: unexpected() }
}

function tell (run, expected) {
  const told = options.verbose ? run.summary.open.filter(test => test.verdict !== 'not run') : run.unexpected
  for (const test of told) {
    const known = expected[test.id]
    console.log(`  ${known ? 'known' : 'REGRESSION'}  ${test.kind} ${test.id} (${test.verdict}) ${known ? known.why : test.why}`)
  }
  const open = new Set(run.summary.open.map(test => test.id))
  for (const id of Object.keys(expected).filter(id => !open.has(id))) {
    console.log(`  better than expected: ${id} passes; take it out of conformance/expected.json`)
  }
}

async function fail (error) {
  console.error(`conformance: ${error.message}`)
  await stopAll()
  process.exit(1)
}

async function main () {
  const stores = { memory: ['memory'], redis: ['redis'], both: ['memory', 'redis'] }[options.store]
  if (!stores) throw new Error('--store is memory, redis or both')
  const installed = path.join(here, 'node_modules/http-cache-tests')
  const folder = options.suite ?? installed
  if (!fs.existsSync(folder)) throw new Error(`${folder} is missing; run make conformance`)
  const suite = await Suite.open(folder)
  const read = file => JSON.parse(fs.readFileSync(path.join(here, file), 'utf8'))
  const all = read('expected.json')
  const expected = suite.maintained ? all.not_passing_maintained : all.not_passing
  const only = options.only && suite.withDependencies(options.only.split(','))
  const runs = []
  for (const store of stores) runs.push(await runOn(store, suite, expected, only))
  for (const run of runs) tell(run, expected)
  const regressions = runs.flatMap(run => run.unexpected)
  if (!options.check && !options.only && !suite.maintained && regressions.length === 0) {
    const version = /^version = "(.*)"$/m.exec(fs.readFileSync(path.join(root, 'Cargo.toml'), 'utf8'))[1]
    const suiteName = `\`http-cache-tests\` ${JSON.parse(fs.readFileSync(path.join(installed, 'package.json'), 'utf8')).version}`
    const date = new Date().toISOString().slice(0, 10)
    write(path.join(root, 'docs/conformance.md'), { date, version, suiteName, runs, expected: all, peers: read('peers.json') })
    console.log('· wrote docs/conformance.md')
  }
  if (regressions.length) throw new Error(`${regressions.length} test(s) fail that should pass`)
}

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => fail(new Error(`stopped by ${signal}`)))
// Whatever happens, nothing is left running.
for (const event of ['uncaughtException', 'unhandledRejection']) process.once(event, fail)
main().then(() => process.exit(0), fail)
