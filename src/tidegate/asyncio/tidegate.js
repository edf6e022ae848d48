/* Channels of a tidegate server in a browser: one socket, which comes back by itself and resumes where it was.
 *     const tidegate = new Tidegate("wss://example.com/live");
 *     tidegate.join("chat:7", (data, { channel, position }) => show(data), { presence: true });
 *     tidegate.addEventListener("presence", ({ detail }) => list(detail.members));
 *     await tidegate.publish("chat:7", { text: "hello" });
 * Events, each with a `detail`: open; close {code, reason, final}; joined {channel, at, resumed, missed}; failed, the
 * same: messages were missed while away; gap {channel, from, to, at, why}: some were missed while connected; left
 * {channel, why}; error {error}. Where a join asked for it: presence {channel, members, count} whenever that changes,
 * a Map, or null if there are too many; in {channel, member, info}, out. Nothing of one page must live here.
 * @typedef {(data: any, message: {channel: string, position: string | null}) => void} Callback */
export class Tidegate extends EventTarget {
  /** @param {string | URL} url  http: and a path do, too; `positions` keeps places: a Map, or what wraps sessionStorage
   * @param {{positions?: Pick<Map<string, string>, "get" | "set">, timeout?: number}} options  ms for publish() */
  constructor(url, { positions = new Map(), timeout = 10_000 } = {}) {
    super(), this.url = new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");
    this.positions = positions, this.timeout = timeout, this.serial = this.attempt = 0, this.ended = false;
    this.members = /** @type {Map<string, any>} */ (new Map()); // of channels: what join() sets
    this.sent = new Map(), this.asked = new Map(); // without an answer: publications; channels, of who is there
    this.name = crypto.getRandomValues(new Uint32Array(3)).join("-"), this.connect(); // of this page, for keys
  }
  /** Join a channel, or begin anew; the `last` messages come first if there is no place to resume from.
   * @param {string} name @param {Callback} callback @param {{since?: string, last?: number, presence?: boolean}} how */
  join(name, callback, { since = this.positions.get(name), last = 0, presence = false } = {}) {
    this.members.set(name, { callback, last, state: "new", at: since ?? null, presence, here: null });
    queueMicrotask(() => this.sendJoins()); // one command for all joins of this turn
  }
  leave(/** @type {string} */ name) { this.members.delete(name) && this.say({ leave: [name] }); }
  /** Publish bytes, or what JSON can say. If the socket breaks it is sent again, and with history stored once.
   * @param {string} channel @param {any} data @param {{key?: string}} options @returns {Promise<string?>} position */
  publish(channel, data, { key = `${this.name}-${this.serial}` } = {}) {
    return new Promise((resolve, reject) => {
      if (this.ended || this.sent.size >= 100) return reject(new Error(this.ended ? "closed" : "busy"));
      const id = this.serial++, message = pack({ publish: channel, key, id }, data);
      this.sent.set(id, { message, done: (error, at) => (error ? reject(new Error(error)) : resolve(at)) });
      this.send(message), setTimeout(() => this.settle(id, "timeout"), this.timeout);
    });
  }
  close() { this.end(1000, ""), this.socket?.close(1000); }
  connect() { // what follows is for this class alone
    const begun = Date.now(), socket = (this.socket = new WebSocket(this.url, "tidegate.v1"));
    socket.binaryType = "arraybuffer", socket.onmessage = ({ data }) => this.ended || this.take(data);
    socket.onopen = () => { this.sendJoins(), this.sent.forEach((p) => this.send(p.message)), this.tell("open", {}); };
    socket.onclose = ({ code, reason }) => {
      this.members.forEach((member) => (member.state = "new")), this.asked.clear();
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
    const all = this.socket?.readyState === 1 ? [...this.members].filter(([, { state }]) => state === "new") : [];
    const id = this.serial++, last = all[0]?.[1].last, some = all.filter(([, m]) => m.last === last).slice(0, 100);
    const join = Object.fromEntries(some.map(([name, m]) => [name, (m.state = id, m.at)]));
    if (some.length) this.say({ join, last, id }), this.sendJoins(); // beyond 100, or with another `last`
  }
  say(/** @type {any} */ command) { this.send(JSON.stringify(command)); }
  send(/** @type {any} */ message) { if (this.socket?.readyState === 1) this.socket.send(message); }
  settle(/** @type {any} */ id, error = "", at = null) { this.sent.get(id)?.done(error, at), this.sent.delete(id); }
  take(/** @type {string | ArrayBuffer} */ message) {
    const { c, o, d, at, id, joined, gap, left, error, from, to, why, m, i, presence, ...more } = parse(message);
    const member = this.members.get(c ?? gap), position = at ?? (o >= 0 ? `${member?.at?.split(".")[0]}.${o}` : null);
    // The position comes before the callback: what fails there must not come again.
    if (c) member?.state === "joined" && (this.keep(c, member, position), member.callback(d, { channel: c, position }));
    else if (joined) Object.entries(joined).forEach(([channel, answer]) => this.answered(id, channel, answer));
    else if (gap) this.keep(gap, member, at), this.tell("gap", { channel: gap, from, to, at, why });
    else if (left) this.members.delete(left) && this.tell("left", { channel: left, why });
    else if (m) this.moved(more.in ?? more.out, m, "in" in more, i);
    else if (this.asked.has(id)) this.listed(id, error, presence, more.count);
    else if (presence) this.ask(presence); // the list is another one
    else id !== undefined ? this.settle(id, error, at) : error && this.tell("error", { error });
  }
  answered(/** @type {any} */ id, /** @type {any} */ channel, /** @type {any} */ answer) {
    const { at = null, resumed, missed = 0, error, retry } = answer, member = this.members.get(channel);
    if (!member || member.state !== id) return; // left, or joined anew since
    if (retry || ["busy", "down", "failed"].includes(error)) // later, from the same place
      return setTimeout(() => { member.state = "new", this.sendJoins(); }, 1000 * (retry ?? 1) * (1 + Math.random()));
    if (error) return this.members.delete(channel), this.tell("left", { channel, why: error });
    member.state = "joined", this.keep(channel, member, at), this.tell("joined", { channel, at, resumed, missed });
    this.ask(channel), /failed|partial/.test(resumed) && this.tell("failed", { channel, at, resumed, missed });
  }
  ask(/** @type {string} */ presence, id = this.serial++) {
    if (this.members.get(presence)?.presence) this.asked.set(id, presence), this.say({ presence, id });
  }
  listed(/** @type {any} */ id, /** @type {any} */ error, /** @type {any} */ list = null, count = 0) {
    const channel = this.asked.get(id), member = this.members.get(channel), known = member?.here;
    const members = list && new Map(Object.entries(list));
    if (this.asked.delete(id) && error) return setTimeout(() => this.ask(channel), 1000 + 1000 * Math.random());
    if (known && members) known.forEach((_, name) => members.has(name) || this.moved(channel, name)); // while away
    else if (member) member.here = members, this.tell("presence", { channel, members, count });
    members?.forEach((info, name) => this.moved(channel, name, true, info));
  }
  moved(/** @type {any} */ channel, /** @type {any} */ member, came = false, /** @type {any} */ info = null) {
    const members = this.members.get(channel)?.here, was = members?.has(member);
    if (members) came ? members.set(member, info) : members.delete(member);
    if (!members || was === came) return; // the list is still to come, or had it
    this.tell(came ? "in" : "out", { channel, member, info });
    this.tell("presence", { channel, members, count: members.size });
  }
  keep(/** @type {any} */ name, /** @type {any} */ m, at = "") { at && m && this.positions.set(name, (m.at = at)); }
  tell(/** @type {string} */ type, /** @type {any} */ detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}
function pack(/** @type {any} */ head, /** @type {any} */ data = null) {
  if (!(data instanceof ArrayBuffer || ArrayBuffer.isView(data))) return JSON.stringify({ ...head, data });
  const text = new TextEncoder().encode(JSON.stringify(head)), n = text.length; // which is before it as a varint
  const bytes = "buffer" in data ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  return new Uint8Array([...(n < 128 ? [n] : [(n & 127) | 128, n >> 7]), ...text, ...bytes]);
}
function parse(/** @type {string | ArrayBuffer} */ message) {
  if (typeof message === "string") return JSON.parse(message);
  const bytes = new Uint8Array(message), [a, b] = bytes, n = a < 128 ? 1 : 2, end = n + (a & 127) + (n - 1) * (b << 7);
  return { ...JSON.parse(new TextDecoder().decode(bytes.subarray(n, end))), d: message.slice(end) };
}
