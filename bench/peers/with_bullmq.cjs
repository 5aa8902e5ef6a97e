// Jobs for BullMQ, which are removed when they are done: `node with_bullmq.cjs fill 10000`, `… work`.

const { Queue, Worker } = require("bullmq");
const { count } = require("./counting.cjs");

const connection = { url: process.env.BENCH_REDIS, maxRetriesPerRequest: null };

async function fill(jobs) {
  const queue = new Queue("bench", { connection, defaultJobOptions: { removeOnComplete: true } });
  for (let at = 0; at < jobs; at += 1000) {
    const some = Array.from({ length: Math.min(1000, jobs - at) }, (_, i) => ({ name: "job", data: { number: at + i } }));
    await queue.addBulk(some);
  }
  await queue.close();
}

if (process.argv[2] === "fill") fill(Number(process.argv[3]));
else new Worker("bench", async () => count(), { connection, concurrency: 50, removeOnComplete: { count: 0 } });
