/* Channels of a tidegate server in a browser: one socket, which comes back by itself and resumes where it was.
 *
 *     const tidegate = new Tidegate("wss://example.com/live");
 *     tidegate.join("chat:7", (data, { channel, position }) => show(data));
 *     tidegate.addEventListener("failed", () => location.reload());
 *     await tidegate.publish("chat:7", { text: "hello" });
 * Events, each with a `detail`: open; close {code, reason, final}; joined {channel, at, resumed, missed}; failed, the
 * same: messages were missed while away; gap {channel, from, to, at, why}: some were missed while connected;
 * left {channel, why}; error {error}. Nothing that belongs to one page must live here. */
/** @typedef {(data: any, message: {channel: string, position: string | null}) => void} Callback
 * @typedef {{callback: Callback, last: number, state: "new" | "joined" | number, at: string | null}} Member */
export class Tidegate extends EventTarget {
  /** @param {string | URL} url  http: and a path do, too; `positions` keeps places: a Map, or what wraps sessionStorage
   * @param {{positions?: Pick<Map<string, string>, "get" | "set">, timeout?: number}} options  ms for publish() */
  constructor(url, { positions = new Map(), timeout = 10_000 } = {}) {
    super();
    this.url = new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");
    this.positions = positions, this.timeout = timeout;
    this.members = /** @type {Map<string, Member>} */ (new Map());
    this.sent = /** @type {Map<number, any>} */ (new Map()); // publications without an answer
    this.name = crypto.getRandomValues(new Uint32Array(3)).join("-"); // of this page, for keys
    this.serial = this.attempt = 0, this.ended = false;
    this.connect();
  }
  /** Join a channel, or begin anew; the `last` messages come first if there is no place to resume from.
   * @param {string} channel @param {Callback} callback @param {{since?: string, last?: number}} options */
  join(channel, callback, { since = this.positions.get(channel), last = 0 } = {}) {
    this.members.set(channel, { callback, last, state: "new", at: since ?? null });
    queueMicrotask(() => this.sendJoins()); // one command for all joins of this turn
  }
  leave(/** @type {string} */ name) { if (this.members.delete(name)) this.send(JSON.stringify({ leave: [name] })); }
  /** Publish bytes, or what JSON can say. If the socket breaks it is sent again, and with history stored once.
   * @param {string} channel @param {any} data @param {{key?: string}} options @returns {Promise<string?>} position */
  publish(channel, data, { key = `${this.name}-${this.serial}` } = {}) {
    return new Promise((resolve, reject) => {
      if (this.ended || this.sent.size >= 100) return reject(new Error(this.ended ? "closed" : "busy"));
      const id = this.serial++, message = pack({ publish: channel, key, id }, data);
      this.sent.set(id, { message, resolve, reject });
      setTimeout(() => this.settle(id, "timeout"), this.timeout);
      this.send(message);
    });
  }
  close() { this.end(1000, ""), this.socket?.close(1000); }
  connect() { // what follows is for this class alone
    const begun = Date.now(), socket = (this.socket = new WebSocket(this.url, "tidegate.v1"));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.sendJoins(), this.sent.forEach((p) => this.send(p.message)), this.tell("open", {}); };
    socket.onmessage = ({ data }) => this.ended || this.take(data);
    socket.onclose = ({ code, reason }) => {
      for (const member of this.members.values()) member.state = "new";
      // The server, or the application (4000-4999), does not want this client back, or would close it again.
      if ([1000, 1002, 1003, 1007, 1008, 1009, 1010].includes(code) || code >= 4000) return this.end(code, reason);
      if (Date.now() - begun > 10_000) this.attempt = 0; // all was well before
      const first = !this.attempt++ && [1001, 1012, 1013].includes(code); // together with all others: spread them
      const delay = first ? 2 * Math.random() : 0.5 + Math.random() * (Math.min(30, 2 ** this.attempt) - 0.5);
      setTimeout(() => this.ended || this.connect(), 1000 * delay);
      if (!this.ended) this.tell("close", { code, reason, final: false });
    };
  }
  end(/** @type {number} */ code, /** @type {string} */ reason) {
    if (!this.ended) this.tell("close", { code, reason, final: (this.ended = true) });
    this.sent.forEach((_, id) => this.settle(id, "closed"));
  }
  sendJoins() {
    if (this.socket?.readyState !== 1) return;
    const all = [...this.members].filter(([, member]) => member.state === "new");
    for (const last of new Set(all.map(([, member]) => member.last))) {
      for (const some = all.filter(([, member]) => member.last === last); some.length; ) {
        const id = this.serial++;
        const part = some.splice(0, 100).map(([name, member]) => [name, (member.state = id, member.at)]);
        this.send(JSON.stringify({ join: Object.fromEntries(part), last, id }));
      }
    }
  }
  send(/** @type {any} */ message) { if (this.socket?.readyState === 1) this.socket.send(message); }
  settle(/** @type {number} */ id, /** @type {string | undefined} */ error, /** @type {string | null} */ at = null) {
    error ? this.sent.get(id)?.reject(new Error(error)) : this.sent.get(id)?.resolve(at), this.sent.delete(id);
  }
  take(/** @type {string | ArrayBuffer} */ data) {
    const { c, o, d, at, id, joined, gap, left, error, from, to, why } = parse(data);
    const member = this.members.get(c ?? gap), position = at ?? (o >= 0 ? `${member?.at?.split(".")[0]}.${o}` : null);
    if (c && member?.state === "joined") {
      this.keep(c, member, position); // before the callback: what fails there must not come again
      member.callback(d, { channel: c, position });
    } else if (joined) Object.entries(joined).forEach(([channel, answer]) => this.answered(id, channel, answer));
    else if (gap) this.keep(gap, member, at), this.tell("gap", { channel: gap, from, to, at, why });
    else if (left) this.members.delete(left) && this.tell("left", { channel: left, why });
    else if (id !== undefined) this.settle(id, error, at);
    else if (error) this.tell("error", { error });
  }
  answered(/** @type {any} */ id, /** @type {any} */ channel, /** @type {any} */ answer) {
    const { at = null, resumed, missed = 0, error, retry } = answer, member = this.members.get(channel);
    if (!member || member.state !== id) return; // left, or joined anew since
    if (retry || ["busy", "down", "failed"].includes(error)) // later, from the same place
      return setTimeout(() => { member.state = "new", this.sendJoins(); }, 1000 * (retry ?? 1) * (1 + Math.random()));
    if (error) return this.members.delete(channel), this.tell("left", { channel, why: error });
    member.state = "joined";
    this.keep(channel, member, at);
    this.tell("joined", { channel, at, resumed, missed });
    if (["failed", "partial"].includes(resumed)) this.tell("failed", { channel, at, resumed, missed });
  }
  keep(/** @type {string} */ name, /** @type {any} */ member, /** @type {any} */ at) {
    if (at && member) this.positions.set(name, (member.at = at));
  }
  tell(/** @type {string} */ type, /** @type {any} */ detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}
function pack(/** @type {any} */ head, /** @type {any} */ data) {
  const binary = data instanceof ArrayBuffer || ArrayBuffer.isView(data);
  if (!binary) return JSON.stringify({ ...head, data: data ?? null });
  const text = new TextEncoder().encode(JSON.stringify(head)), n = text.length; // which is before it as a varint
  const size = n < 128 ? [n] : [(n & 127) | 128, n >> 7];
  const bytes = "buffer" in data ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  return new Uint8Array([...size, ...text, ...bytes]);
}
function parse(/** @type {string | ArrayBuffer} */ message) {
  if (typeof message === "string") return JSON.parse(message);
  const bytes = new Uint8Array(message), start = bytes[0] < 128 ? 1 : 2;
  const end = start + (bytes[0] & 127) + (start - 1) * (bytes[1] << 7);
  return { ...JSON.parse(new TextDecoder().decode(bytes.subarray(start, end))), d: message.slice(end) };
}
