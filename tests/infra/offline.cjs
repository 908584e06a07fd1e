// Loaded into the CDK's Node process: opening a connection, or starting a program other than Node
// itself, fails the synth.
const net = require("node:net");
const dns = require("node:dns");
const childProcess = require("node:child_process");

const refuse = (what) => () => {
  throw new Error(`synth must work offline and alone, but it called ${what}`);
};

net.Socket.prototype.connect = refuse("connect");
dns.lookup = refuse("dns.lookup");
dns.promises.lookup = refuse("dns.lookup");
for (const name of ["exec", "execSync", "execFile", "execFileSync", "spawn", "spawnSync", "fork"]) {
  const original = childProcess[name];
  childProcess[name] = (program, ...rest) =>
    program === process.execPath ? original(program, ...rest) : refuse(`${name} ${program}`)();
}
