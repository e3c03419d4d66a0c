// ioredis, as a plain and as a cluster client, against one node.
const Redis = require("ioredis");
const assert = require("node:assert");

async function main(port) {
  const client = new Redis(port, "127.0.0.1");
  client.on("error", (error) => { throw error; });
  assert.equal(await client.set("io", "redis"), "OK");
  assert.equal(await client.get("io"), "redis");
  assert.equal(await client.set("io", "x", "EX", 100, "GET"), "redis");
  assert.ok((await client.pttl("io")) > 0);
  const answers = await client.pipeline().set("io1", 1).incr("io1").get("io1").exec();
  assert.deepEqual(answers, [[null, "OK"], [null, 2], [null, "2"]]);
  await client.quit();
  const cluster = new Redis.Cluster([{ host: "127.0.0.1", port }]);
  assert.equal(await cluster.set("io-cluster", "yes"), "OK");
  assert.equal(await cluster.get("io-cluster"), "yes");
  await cluster.quit();
}

main(Number(process.argv[2])).catch((error) => {
  console.error(error);
  process.exit(1);
});
