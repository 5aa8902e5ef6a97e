// A worker for Node 18 or later: node worker.mjs [QUEUE]. Needs nothing else.
import { setTimeout } from 'node:timers/promises'

const url = process.env.PRESQUE_URL ?? 'http://127.0.0.1:5000'
const queue = process.argv[2] ?? 'greetings'

async function work(job) {
  if (!job.name) throw new Error('a greeting needs a name')
  console.log(`hello, ${job.name}`)
}

async function post(path, body) {
  const answer = await fetch(url + path, { method: 'POST', body: JSON.stringify(body) })
  if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`)
  return answer.status === 204 ? { jobs: [] } : answer.json()
}

while (true) {
  try {
    const { jobs } = await post(`/q/${queue}/lease`, { wait: 20 })
    for (const { queue, id, lease, body } of jobs) {
      try {
        await work(body)
      } catch (error) {
        await post(`/j/${queue}/${id}/fail`, { lease, error: error.message })
        continue
      }
      await post(`/j/${queue}/${id}/ack`, { lease })
    }
  } catch (error) { // the server is away, or the lease is over: what was not acked comes again
    console.error(error.message)
    await setTimeout(1000)
  }
}
