// `ws`, of npm, as a peer: the language of program.py, for Node. Started as `node with_ws.js FOLDER_OF_WS`.
// What must not live here: test cases.
"use strict";

const { WebSocket, WebSocketServer } = require(process.argv[2]);

const connections = new Map();
const accepted = [];
const awaited = []; // those who wait for the next of `accepted`

const pack = (data, binary) => (binary ? { binary: data.toString("base64") } : { text: data.toString() });
const unpack = ({ text, binary }) => (text === undefined ? Buffer.from(binary, "base64") : text);

class Rejected extends Error {
  constructor(status) {
    super(`answered ${status}`);
    this.status = status;
  }
}

// A connection's messages and its end, in order, for whoever asks.
class Connection {
  constructor(websocket, headers) {
    this.websocket = websocket;
    this.headers = headers;
    this.messages = [];
    this.readers = [];
    this.pongs = [];
    const tell = (message) => (this.readers.length ? this.readers.shift()(message) : this.messages.push(message));
    websocket.on("message", (data, binary) => tell(pack(data, binary)));
    websocket.on("pong", (data) => this.pongs.shift()?.(data));
    websocket.on("error", () => {}); // the end says it
    this.end = new Promise((resolve) => {
      websocket.on("close", (code, reason) => {
        const closed = { closed: [code, reason.toString()] };
        tell(closed);
        resolve(closed);
      });
    });
  }

  opened() {
    const number = connections.size + 1;
    connections.set(number, this);
    return { connection: number, subprotocol: this.websocket.protocol || null, headers: this.headers };
  }
}

function deflate(compression) {
  if (compression === undefined || compression === null) return false;
  const asked = {};
  if (compression.no_context_takeover) Object.assign(asked, { serverNoContextTakeover: true, clientNoContextTakeover: true });
  const bits = compression.window_bits;
  if (bits) Object.assign(asked, { serverMaxWindowBits: bits, clientMaxWindowBits: bits });
  return { threshold: 0, ...asked };
}

const common = (options) => ({
  perMessageDeflate: deflate(options.compression),
  ...(options.max_size === undefined ? {} : { maxPayload: options.max_size }),
});

const commands = {
  connect({ uri, options }) {
    return new Promise((resolve, reject) => {
      const websocket = new WebSocket(uri, options.subprotocols ?? [], {
        ...common(options),
        headers: options.headers ?? {},
        ...(options.user ? { auth: options.user.join(":") } : {}),
      });
      let connection;
      websocket.on("upgrade", ({ headers }) => (connection = new Connection(websocket, headers)));
      websocket.on("open", () => resolve(connection.opened()));
      websocket.on("unexpected-response", (request, { statusCode }) => {
        reject(new Rejected(statusCode));
        request.destroy();
      });
      websocket.on("error", reject);
    });
  },

  serve({ options }) {
    const { user, headers, subprotocols = [] } = options;
    const expected = user && `Basic ${Buffer.from(user.join(":")).toString("base64")}`;
    const server = new WebSocketServer({
      host: "127.0.0.1",
      port: 0,
      ...common(options),
      handleProtocols: (offered) => subprotocols.find((name) => offered.has(name)) ?? false,
      verifyClient: ({ req }, answer) =>
        expected === undefined || req.headers.authorization === expected
          ? answer(true)
          : answer(false, 401, "Unauthorized", { "WWW-Authenticate": 'Basic realm="interop"' }),
    });
    server.on("headers", (lines) => {
      for (const [name, value] of Object.entries(headers ?? {})) lines.push(`${name}: ${value}`);
    });
    server.on("connection", (websocket, request) => {
      const connection = new Connection(websocket, request.headers);
      if (awaited.length) awaited.shift()(connection);
      else accepted.push(connection);
    });
    return new Promise((resolve) => server.on("listening", () => resolve(server.address().port)));
  },

  async accept() {
    const connection = accepted.shift() ?? (await new Promise((resolve) => awaited.push(resolve)));
    return connection.opened();
  },

  send({ websocket }, { message }) {
    return new Promise((resolve, reject) =>
      websocket.send(unpack(message), (error) => (error ? reject(error) : resolve(null))),
    );
  },

  fragments({ websocket }, { parts }) {
    parts.forEach((part, index) => websocket.send(unpack(part), { fin: index === parts.length - 1 }));
    return null;
  },

  recv({ messages, readers }) {
    return messages.length ? messages.shift() : new Promise((resolve) => readers.push(resolve));
  },

  ping({ websocket, pongs }, { message }) {
    const data = unpack(message);
    return new Promise((resolve, reject) => {
      pongs.push((answer) => (answer.equals(data) ? resolve(null) : reject(new Error(`another pong: ${answer}`))));
      websocket.ping(data);
    });
  },

  close({ websocket, end }, { code, reason }) {
    websocket.close(code, reason);
    return end;
  },
};

require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { number, do: name, connection, ...given } = JSON.parse(line);
    let answer;
    try {
      const target = connection === undefined ? [] : [connections.get(connection)];
      answer = (await commands[name](...target, given)) ?? null;
    } catch (error) {
      answer = error instanceof Rejected ? { rejected: error.status } : { error: String(error) };
    }
    process.stdout.write(`${JSON.stringify({ number, answer })}\n`);
  })
  .on("close", () => process.exit());
