// Jobs for bunqueue's server, on Bun: `bun with_bunqueue.cjs fill 10000`, `… work`.

const { Queue, Worker } = require("bunqueue/client");
const { count } = require("./counting.cjs");

const connection = { host: "127.0.0.1", port: Number(process.env.BENCH_BUNQUEUE) };

async function fill(jobs) {
  const queue = new Queue("bench", { connection });
  for (let at = 0; at < jobs; at += 1000) {
    const some = Array.from({ length: Math.min(1000, jobs - at) }, (_, i) => ({
      name: "job", data: { number: at + i }, opts: { removeOnComplete: true },
    }));
    await queue.addBulk(some);
  }
  await queue.close();
  process.exit(0);
}

if (process.argv[2] === "fill") fill(Number(process.argv[3]));
else new Worker("bench", async () => count(), { connection, concurrency: 50, batchSize: 100, removeOnComplete: true });
