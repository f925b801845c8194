// The public suite "http-cache-tests": where it is, how it is run, what its results mean.
// Works with npm 0.4.5 and with a checkout of the maintained version (its client is in test-engine/).
import fs from 'node:fs'
import path from 'node:path'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'

export class Suite {
  static async open (folder) {
    const suite = new Suite()
    suite.folder = path.resolve(folder)
    suite.maintained = fs.existsSync(path.join(folder, 'test-engine/client/runner.mjs'))
    suite.server = suite.maintained ? 'test-engine/server/server.mjs' : 'server/server.mjs'
    suite.groups = [...(await suite.load('tests/index.mjs')).default]
    if (!suite.maintained) suite.groups.push((await suite.load('tests/surrogate-control.mjs')).default)
    suite.tests = new Map(suite.groups.flatMap(group => group.tests.map(test => [test.id, test])))
    return suite
  }

  load (file) {
    return import(pathToFileURL(path.join(this.folder, file)).href)
  }

  // Raw results by id: true, or [kind of failure, message]. `only` restricts to some ids. Each run has a thread of its
  // own, for the suite keeps its results in its modules.
  run (url, only) {
    const workerData = { folder: this.folder, url, only: only && [...only] }
    return new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData })
      worker.once('message', resolve)
      worker.once('error', reject)
      worker.once('exit', code => reject(new Error(`the suite ended (${code})`)))
    })
  }

  async runHere (url, only) {
    const keep = test => !only || only.includes(test.id)
    const groups = this.groups
      .map(group => ({ ...group, tests: group.tests.filter(keep) }))
      .filter(group => group.tests.length)
    if (this.maintained) {
      const { runTests, getResults } = await this.load('test-engine/client/runner.mjs')
      await runTests(groups, false, url)
      return { ...getResults() }
    }
    const { runTests, getResults } = await this.load('client/runner.mjs')
    // The package's own client waits for ever.
    const nodeFetch = createRequire(path.join(this.folder, 'cli.mjs'))('node-fetch')
    await runTests(groups, (target, options = {}) => nodeFetch(target, { ...options, timeout: 20000 }), false, url)
    return { ...getResults() }
  }

  // A test's dependencies, theirs included.
  withDependencies (ids) {
    const all = new Set()
    const add = id => {
      if (all.has(id) || !this.tests.has(id)) return
      all.add(id)
      for (const dependency of this.tests.get(id).depends_on ?? []) add(dependency)
    }
    for (const id of ids) add(id)
    return all
  }

  // What a result means, in the suite's own order of precedence: "dependency" (a test it builds on did not pass),
  // "setup" (it never got to the point), else pass / fail, for checks yes / no.
  verdicts (results) {
    const verdicts = new Map()
    const judge = id => {
      if (!verdicts.has(id)) verdicts.set(id, this.judge(id, results, judge))
      return verdicts.get(id)
    }
    for (const id of this.tests.keys()) judge(id)
    return verdicts
  }

  judge (id, results, judge) {
    const test = this.tests.get(id)
    const result = results[id]
    if (!test || result === undefined) return 'not run'
    if ((test.depends_on ?? []).some(other => !['pass', 'yes'].includes(judge(other)))) return 'dependency'
    const check = test.kind === 'check'
    if (result === true) return check ? 'yes' : 'pass'
    if (result[0] === 'Setup') return 'setup'
    if (result[0] === 'AbortError') return 'timeout'
    return check ? 'no' : 'fail'
  }

  // Counts by kind, and every required or optimal test that did not pass.
  summary (results) {
    const verdicts = this.verdicts(results)
    const counts = { required: { pass: 0, total: 0 }, optimal: { pass: 0, total: 0 }, check: { pass: 0, total: 0 } }
    const open = []
    for (const test of this.tests.values()) {
      if (test.browser_only) continue
      const kind = test.kind ?? 'required'
      const verdict = verdicts.get(test.id)
      counts[kind].total++
      if (verdict === 'pass' || verdict === 'yes') counts[kind].pass++
      else if (kind !== 'check') open.push({ id: test.id, kind, verdict, why: describe(results[test.id]) })
    }
    return { counts, open }
  }
}

function describe (result) {
  return Array.isArray(result) ? result.join(': ') : ''
}

export function oneLine (counts) {
  const fraction = ({ pass, total }) => `${pass}/${total}`
  return `required ${fraction(counts.required)}, optimal ${fraction(counts.optimal)}, checks yes ${fraction(counts.check)}`
}

if (!isMainThread) {
  const suite = await Suite.open(workerData.folder)
  parentPort.postMessage(await suite.runHere(workerData.url, workerData.only))
  process.exit(0)
}
