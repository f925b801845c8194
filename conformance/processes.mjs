// Starting what a run needs, each on a free port, and stopping it again.
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { spawn } from 'node:child_process'

const running = []

export function freePort () {
  return new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

export function scratch () {
  return fs.mkdtempSync(path.join(os.tmpdir(), 'larder-conformance-'))
}

// Starts a program and resolves once `ready(output)` holds; rejects when it ends before, with its last words.
export function start (command, args, options, ready) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  running.push(child)
  let output = ''
  return new Promise((resolve, reject) => {
    const hear = async chunk => {
      output += chunk
      if (await ready(output)) resolve(child)
    }
    child.stdout.on('data', hear)
    child.stderr.on('data', hear)
    child.once('error', error => reject(new Error(`${command}: ${error.message}`)))
    child.once('exit', code => !child.stopped && reject(new Error(`${command} ended (${code}):\n${output.trim().split('\n').slice(-5).join('\n')}`)))
  })
}

// Resolves once something listens on the port.
export async function listening (port, deadline = Date.now() + 10000) {
  for (;;) {
    const open = await new Promise(resolve => {
      const socket = net.connect(port, '127.0.0.1')
      socket.once('connect', () => { socket.destroy(); resolve(true) })
      socket.once('error', () => resolve(false))
    })
    if (open) return
    if (Date.now() > deadline) throw new Error(`nothing listens on port ${port}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

export async function stopAll () {
  const ends = running.splice(0).reverse().map(child => new Promise(resolve => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.stopped = true
    child.once('exit', resolve)
    child.kill('SIGTERM')
    setTimeout(() => child.kill('SIGKILL'), 5000).unref()
  }))
  await Promise.all(ends)
}
