// A producer for Node 18 or later: node producer.mjs QUEUE NAME... Needs nothing else.
const url = process.env.PRESQUE_URL ?? 'http://127.0.0.1:5000'
const [queue, ...people] = process.argv.slice(2)

for (const name of people) {
  const answer = await fetch(`${url}/q/${queue}`, { method: 'POST', body: JSON.stringify({ name }) })
  const { id, error } = await answer.json()
  if (!answer.ok) throw new Error(error)
  console.log(id)
}
