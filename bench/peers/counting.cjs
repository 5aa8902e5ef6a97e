// The job that every library in Node does: see counting.py.

const fs = require("node:fs");

const EVERY = 100;
const file = fs.openSync(process.env.BENCH_COUNTS, "a");
let number = 0;

exports.count = () => {
  number += 1;
  if (number === 1 || number % EVERY === 0) {
    fs.writeSync(file, `${process.pid} ${number} ${process.hrtime.bigint()}\n`);
  }
};
