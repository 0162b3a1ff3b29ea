"""What runs inside Redis, a key's hash at a time; each script is one atomic step.

A bucket is two fields: what is taken, times ``MINUTE_US`` so that all is in whole numbers, and
when that was so. A worker's cell, ``c:NAME``, is ``calls tokens money until last``: what it has
under way, when it counts as dead unless it says otherwise, and the last settlement it made, so
that one sent again is not counted again.
"""

_SHARED = """
local MINUTE_US = 60000000
local FORGET_US = 3600 * 1000000
local hash, flat = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do hash[flat[i]] = flat[i + 1] end
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local lease, name, expiry = tonumber(ARGV[2]), 'c:' .. ARGV[3], tonumber(ARGV[4])
local changed = {}
local function whole(number) return string.format('%.0f', number) end
local function set(field, value)
  hash[field] = value
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end
local function get(field) return tonumber(hash[field] or '0') end
-- A clock may step back a little between two calls; what flowed in flows in once. One that was
-- set back by more begins anew.
local function moment(bucket)
  local at = get(bucket .. ':at')
  if at > now + MINUTE_US then return now end
  return math.max(at, now)
end
local function taken(bucket, limit)
  local since = math.max(0, moment(bucket) - get(bucket .. ':at'))
  return math.max(0, get(bucket) - since * limit)
end
local function keep(bucket, level)
  set(bucket, whole(level))
  set(bucket .. ':at', whole(moment(bucket)))
end
local function cell(text)
  local calls, tokens, money, till, last =
    string.match(text or '0 0 0 0 0', '(%S+) (%S+) (%S+) (%S+) (%S+)')
  return {tonumber(calls), tonumber(tokens), tonumber(money), tonumber(till), tonumber(last)}
end
local function keep_cell(mine)
  set(name, table.concat({whole(mine[1]), whole(mine[2]), whole(mine[3]),
    whole(now + lease), whole(mine[5])}, ' '))
end
-- Which of three neighbouring windows is running: the sender's clock may differ from this one.
local function turn(window, before, start, following)
  local begun = start
  if now < tonumber(start) then begun = before end
  if now >= tonumber(following) then begun = following end
  if hash[window] ~= begun then
    set(window, begun)
    set(window .. ':tokens', '0')
    set(window .. ':money', '0')
  end
end
local function store()
  if #changed > 0 then redis.call('HSET', KEYS[1], unpack(changed)) end
  if expiry > 0 then redis.call('EXPIRE', KEYS[1], expiry) else redis.call('PERSIST', KEYS[1]) end
end
"""

ADMIT = (
    _SHARED
    + """
local rpm, tpm, most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local tokens, money = tonumber(ARGV[8]), tonumber(ARGV[9])
local requests_level, tokens_level, requests_full, tokens_full = 0, 0, now, now
local requests_wait, tokens_wait = 0, 0
local requests_were, tokens_were = now, now
if rpm >= 0 then
  local before = taken('requests', rpm)
  requests_were = now + math.ceil(before / math.max(rpm, 1))
  requests_level = before + MINUTE_US
  requests_wait = math.ceil((requests_level - rpm * MINUTE_US) / math.max(rpm, 1))
  requests_full = now + math.ceil(requests_level / math.max(rpm, 1))
end
if tpm >= 0 then
  local before = taken('tokens', tpm)
  tokens_were = now + math.ceil(before / math.max(tpm, 1))
  tokens_level = before + tokens * MINUTE_US
  tokens_wait = math.ceil((tokens_level - tpm * MINUTE_US) / math.max(tpm, 1))
  tokens_full = now + math.ceil(tokens_level / math.max(tpm, 1))
end
if tokens_wait > math.max(requests_wait, 0) then
  return {'tokens', now, math.ceil(tokens_level / MINUTE_US) - tokens, tokens_wait,
    requests_were, tokens_were}
end
if requests_wait > 0 then
  return {'requests', now, math.ceil(requests_level / MINUTE_US) - 1, requests_wait,
    requests_were, tokens_were}
end
local calls, held_tokens, held_money = 0, 0, 0
for field, text in pairs(hash) do
  if string.sub(field, 1, 2) == 'c:' then
    local other = cell(text)
    if other[4] >= now or field == name then
      calls, held_tokens = calls + other[1], held_tokens + other[2]
      held_money = held_money + other[3]
    elseif other[4] + FORGET_US < now then
      redis.call('HDEL', KEYS[1], field)
    end
  end
end
if most >= 0 and calls >= most then
  return {'calls', now, calls, 0, requests_were, tokens_were}
end
for i = 10, #ARGV, 6 do
  local window = ARGV[i]
  turn(window, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  local budgets = {{'tokens', tonumber(ARGV[i + 4]), held_tokens, tokens},
    {'money', tonumber(ARGV[i + 5]), held_money, money}}
  for _, budget in ipairs(budgets) do
    local what, limit, held, wanted = unpack(budget)
    local used = get(window .. ':' .. what)
    if limit >= 0 and (used + held >= limit or used + held + wanted > limit) then
      return {'budget', now, used, held, (i - 10) / 6, what}
    end
  end
end
if rpm >= 0 then keep('requests', requests_level) end
if tpm >= 0 then keep('tokens', tokens_level) end
local mine = cell(hash[name])
mine[1], mine[2], mine[3] = mine[1] + 1, mine[2] + tokens, mine[3] + money
keep_cell(mine)
store()
return {'in', now, requests_full, tokens_full}
"""
)

SETTLE = (
    _SHARED
    + """
local tpm, number, calls = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local held_tokens, held_money = tonumber(ARGV[8]), tonumber(ARGV[9])
local tokens, money = tonumber(ARGV[10]), tonumber(ARGV[11])
local mine = cell(hash[name])
if mine[5] >= number then return 0 end
mine[1], mine[2] = math.max(0, mine[1] - calls), math.max(0, mine[2] - held_tokens)
mine[3], mine[5] = math.max(0, mine[3] - held_money), number
keep_cell(mine)
if tpm >= 0 and tokens ~= held_tokens then
  local level = taken('tokens', tpm) + (tokens - held_tokens) * MINUTE_US
  keep('tokens', math.min(math.max(0, level), 61 * tpm * MINUTE_US))
end
for i = 12, #ARGV, 6 do
  local window = ARGV[i]
  turn(window, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  set(window .. ':tokens', whole(get(window .. ':tokens') + tokens))
  set(window .. ':money', whole(get(window .. ':money') + money))
end
store()
return 1
"""
)
