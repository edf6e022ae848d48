"""What runs within Redis: a channel's history as a stream, with what must not be lost beside it in a hash.

    Script     a script: its text, and its name at the server
    APPEND     store a message and publish it, once however often it is sent
    LOOK       where a channel stands
    READ       what is stored, between two places
    PRESENT    who is in a channel

Keys, after the prefix of the bus: `m:CHANNEL` is a hash, the meta data: `e` the epoch, `s` the offset of the last
message, `t` its time in microseconds, `c` bytes of all messages of this epoch, `o` bytes of those before the oldest
that may be stored. `h:CHANNEL` is the stream; the id of a message is `OFFSET-0`, its fields are `d` the payload, `f`
flags, `t` the time, `w` the sender, `c` bytes of all messages up to it. `s:CHANNEL:PUBLISHER` and `k:CHANNEL:KEY` are
what retries are known by, for five minutes.

An epoch ends when its meta data are gone (a restart without persistence, FLUSHALL, an eviction), and when a process has
seen more of it than there is: then a failover has lost the end of it. That is the *floor*: the highest position that a
process has had from the engine itself, never from a client, who could end an epoch for all. What must not live here:
anything of the connection.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

__all__ = ["APPEND", "LOOK", "PRESENT", "READ", "REMEMBERED", "SCRIPTS", "Script"]

REMEMBERED: Final = 300
"""Seconds for which retries and keys of publishers are known."""


class Script(NamedTuple):
    """A script.

    Attributes:
        text: what EVAL takes.
        sha: what EVALSHA takes.
    """

    text: bytes
    sha: bytes


def _script(*texts: str) -> Script:
    text = "".join(texts).encode()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


# KEYS: meta, stream. ARGV: 1 name for a new epoch, 2 3 4 epoch, offset and time of the floor (the time only after
# another server was found, which may have had other messages under the same numbers), 5 milliseconds to keep the meta.
# Numbers are written with %.0f: Lua's own text of large ones is not exact.
_BEGIN = """
local meta, stream = KEYS[1], KEYS[2]
local known = redis.call('HMGET', meta, 'e', 's', 't', 'c', 'o')
local epoch, top = known[1], tonumber(known[2])
local total, oldest = tonumber(known[4]) or 0, tonumber(known[5]) or 0
local function text(number) return string.format('%.0f', number) end
local function renew()
  redis.call('DEL', stream, meta)
  redis.call('HSET', meta, 'e', ARGV[1], 's', '0')
  epoch, top, total, oldest = ARGV[1], 0, 0, 0
end
local function forked(offset)
  if ARGV[4] == '' or offset == 0 then return false end
  if offset == top then return known[3] ~= ARGV[4] end
  local id = text(offset) .. '-0'
  local entry = redis.call('XRANGE', stream, id, id)[1]
  return entry and entry[2][6] ~= ARGV[4]
end
if not epoch or not top then
  renew()
elseif epoch == ARGV[2] then
  local floor = tonumber(ARGV[3])
  if floor > top or forked(floor) then renew() end
end
"""

_LOOK = """
redis.call('PEXPIRE', meta, ARGV[5])
return {epoch, top, redis.call('HGET', meta, 't') or '0'}
"""

# KEYS: 3 Redis's channel, 4 the publisher, 5 the key if there is one.
# ARGV: 6 payload, 7 flags, 8 sender, 9 sequence, 10 the sequence before it that is to be stored already, 11 messages,
# 12 `=` or `~`, 13 milliseconds, 14 bytes of history, 15 seconds to remember.
_APPEND = """
local payload, sequence = ARGV[6], tonumber(ARGV[9])
local last = redis.call('GET', KEYS[4])
local stored, stored_epoch, stored_offset, stored_time = 0
if last then
  stored, stored_epoch, stored_offset, stored_time = string.match(last, '^(%d+) (%S+) (%d+) (%d+)$')
  stored = tonumber(stored)
end
if stored >= sequence then return {stored_epoch, tonumber(stored_offset), stored_time} end
if stored < tonumber(ARGV[10]) then return redis.error_reply('ORDER the one before it is not stored') end
if KEYS[5] then
  local first = redis.call('GET', KEYS[5])
  if first then
    local first_epoch, offset, time = string.match(first, '^(%S+) (%d+) (%d+)$')
    if first_epoch == epoch then
      redis.call('SET', KEYS[4], ARGV[9] .. ' ' .. first, 'EX', ARGV[15])
      return {epoch, tonumber(offset), time}
    end
  end
end
local clock = redis.call('TIME')
local time = text(clock[1] * 1000000 + clock[2])
local function add()
  return redis.pcall('XADD', stream, 'MAXLEN', ARGV[12], ARGV[11], text(top + 1) .. '-0',
    'd', payload, 'f', ARGV[7], 't', time, 'w', ARGV[8], 'c', text(total + #payload))
end
local added = add()
if type(added) == 'table' and added.err then
  if not string.find(added.err, 'smaller') then return added end
  renew()
  added = add()
  if type(added) == 'table' and added.err then return added end
end
top, total = top + 1, total + #payload
while total - oldest > tonumber(ARGV[14]) do
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  oldest = tonumber(first[2][10]) - #first[2][2]
  if total - oldest <= tonumber(ARGV[14]) or first[1] == added then break end
  redis.call('XDEL', stream, first[1])
end
local place = epoch .. ' ' .. text(top) .. ' ' .. time
redis.call('HSET', meta, 's', text(top), 't', time, 'c', text(total), 'o', text(oldest))
redis.call('PEXPIRE', meta, ARGV[5])
redis.call('PEXPIRE', stream, ARGV[13])
redis.call('SET', KEYS[4], ARGV[9] .. ' ' .. place, 'EX', ARGV[15])
if KEYS[5] then redis.call('SET', KEYS[5], place, 'EX', ARGV[15]) end
local head = struct.pack('>BBI8I8BB', 1, tonumber(ARGV[7]), top, tonumber(time), #epoch, #ARGV[8])
redis.call('PUBLISH', KEYS[3], head .. epoch .. ARGV[8] .. payload)
return {epoch, top, time}
"""

# ARGV: 6 `after`, `before` or `newest`, 7 8 the place, 9 messages at most, 10 bytes at most, 11 microseconds to keep.
# It returns the epoch, the top, whether nothing is missing, and messages, of `before` and `newest` the last one first.
_READ = """
redis.call('PEXPIRE', meta, ARGV[5])
local mode, offset, limit = ARGV[6], tonumber(ARGV[8]), tonumber(ARGV[9])
if mode ~= 'newest' and (ARGV[7] ~= epoch or (mode == 'after' and offset > top)) then return {epoch, top, 0, {}} end
local clock = redis.call('TIME')
local cutoff = clock[1] * 1000000 + clock[2] - tonumber(ARGV[11])
local forward = mode == 'after'
local from
if forward then from = offset + 1 elseif mode == 'before' then from = offset - 1 else from = top end
local messages, size, step, full = {}, 0, 16, false
while from > 0 and #messages < limit and not full do
  local count = math.min(step, limit - #messages)
  local part
  if forward then part = redis.call('XRANGE', stream, text(from) .. '-0', '+', 'COUNT', count)
  else part = redis.call('XREVRANGE', stream, text(from) .. '-0', '-', 'COUNT', count) end
  for _, entry in ipairs(part) do
    local fields, number = entry[2], tonumber(string.match(entry[1], '^%d+'))
    from = forward and number + 1 or number - 1
    if tonumber(fields[6]) > cutoff then
      size = size + #fields[2]
      if #messages > 0 and size > tonumber(ARGV[10]) then full = true break end
      messages[#messages + 1] = {number, fields[2], tonumber(fields[4]), tonumber(fields[6]), fields[8]}
    elseif not forward then full = true break end
  end
  if #part < count then break end
  step = math.min(2 * step, 256)
end
local edge = messages[forward and 1 or #messages]
local complete
if forward then complete = offset == top or (edge and edge[1] == offset + 1)
elseif edge then complete = edge[1] == 1
else complete = top == 0 or (mode == 'before' and offset <= 1) end
return {epoch, top, complete and 1 or 0, messages}
"""

# KEYS: who is in the channel, by process. ARGV: what the names of processes' leases begin with. It returns leases, and
# what their processes said.
_PRESENT = """
local all, living = redis.call('HGETALL', KEYS[1]), {}
for index = 1, #all, 2 do
  local lease = redis.call('GET', ARGV[1] .. all[index])
  if lease then living[#living + 1] = {lease, all[index + 1]}
  else redis.call('HDEL', KEYS[1], all[index]) end
end
return living
"""

LOOK: Final = _script(_BEGIN, _LOOK)
APPEND: Final = _script(_BEGIN, _APPEND)
READ: Final = _script(_BEGIN, _READ)
PRESENT: Final = _script(_PRESENT)

SCRIPTS: Final = (LOOK, APPEND, READ, PRESENT)
