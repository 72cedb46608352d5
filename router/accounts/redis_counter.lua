-- Moving windows and places of many scopes, decided at once: what router/accounts/window.py does in one process.
--
-- KEYS: one for each scope; operations name them by their number.
-- ARGV: 1 buckets that count; 2 milliseconds of a bucket; 3 milliseconds of a lease; 4 who asks, a process;
--       5 now in milliseconds, or "" for this server's clock; 6 operations as JSON:
--       {running = {{key, how many}...}, corrections = {{key, bucket, tokens}...},
--        takes = {{{key...}, {requests, images, tokens}, {{requests, images, tokens, concurrent}...}}...}}
--       where a limit of -1 is none.
-- Returns JSON, for each take {1 if it was let in, bucket, {{used, empty in, waits}...}}.
--
-- A scope is {buckets = {{number, requests, images, tokens}...}, running = {process = {how many, until when}...}}.

local COUNTED, BUCKET_MS, LEASE_MS = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local PROCESS = ARGV[4]
local now = tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local newest = math.floor(now / BUCKET_MS)

local function opened(key)
  local packed = redis.call('GET', key)
  local stored = packed and cmsgpack.unpack(packed) or {buckets = {}, running = {}}
  local scope = {buckets = {}, running = {}, used = {0, 0, 0}}
  for _, bucket in ipairs(stored.buckets) do
    if bucket[1] + COUNTED > newest and bucket[1] <= newest then -- later ones are from before the clock was set
      table.insert(scope.buckets, bucket)
      for kind = 1, 3 do scope.used[kind] = scope.used[kind] + bucket[kind + 1] end
    end
  end
  for process, lease in pairs(stored.running) do
    if lease[2] > now then scope.running[process] = lease end
  end
  return scope
end

local scopes = {}
local function scope_of(number)
  if not scopes[number] then scopes[number] = opened(KEYS[number]) end
  return scopes[number]
end

local function save(key, scope)
  if #scope.buckets == 0 and not next(scope.running) then
    redis.call('DEL', key)
  else
    local packed = cmsgpack.pack({buckets = scope.buckets, running = scope.running})
    redis.call('SET', key, packed, 'PX', math.max(COUNTED * BUCKET_MS, LEASE_MS))
  end
end

local function leaves_in(bucket)
  return (bucket[1] + COUNTED) * BUCKET_MS - now
end

local function empty_in(scope, kind)
  for index = #scope.buckets, 1, -1 do
    if scope.buckets[index][kind + 1] ~= 0 then return leaves_in(scope.buckets[index]) end
  end
  return 0
end

local function wait(scope, kind, limit, amount)
  local too_much = scope.used[kind] + amount - limit
  if limit < 0 or too_much <= 0 then return 0 end
  for _, bucket in ipairs(scope.buckets) do
    too_much = too_much - bucket[kind + 1]
    if too_much <= 0 then return leaves_in(bucket) end
  end
  return COUNTED * BUCKET_MS
end

local function running(scope)
  local sum = 0
  for _, lease in pairs(scope.running) do sum = sum + lease[1] end
  return sum
end

local function waits(scope, amounts, limits)
  local found = {}
  for kind = 1, 3 do found[kind] = wait(scope, kind, limits[kind], amounts[kind]) end
  found[4] = (limits[4] >= 0 and running(scope) >= limits[4]) and 1 or 0
  return found
end

local function set_running(scope, count)
  scope.running[PROCESS] = count > 0 and {count, now + LEASE_MS} or nil
end

local function add(scope, amounts, has_places)
  local last = scope.buckets[#scope.buckets]
  if not last or last[1] ~= newest then
    last = {newest, 0, 0, 0}
    table.insert(scope.buckets, last)
  end
  for kind = 1, 3 do
    last[kind + 1] = last[kind + 1] + amounts[kind]
    scope.used[kind] = scope.used[kind] + amounts[kind]
  end
  if has_places then
    local lease = scope.running[PROCESS]
    set_running(scope, (lease and lease[1] or 0) + 1)
  end
end

local function correct(scope, number, tokens)
  for _, bucket in ipairs(scope.buckets) do
    if bucket[1] == number then
      bucket[4] = bucket[4] + tokens
      scope.used[3] = scope.used[3] + tokens
    end
  end
end

local function take(keys, amounts, limits)
  local found, let_in = {}, 1
  for part, key in ipairs(keys) do
    found[part] = waits(scope_of(key), amounts, limits[part])
    for kind = 1, 4 do
      if found[part][kind] > 0 then let_in = 0 end
    end
  end
  local standings = {}
  for part, key in ipairs(keys) do
    local scope = scope_of(key)
    if let_in == 1 then add(scope, amounts, limits[part][4] >= 0) end
    local empty = {empty_in(scope, 1), empty_in(scope, 2), empty_in(scope, 3)}
    standings[part] = {{scope.used[1], scope.used[2], scope.used[3]}, empty, found[part]}
  end
  return {let_in, newest, standings}
end

local operations = cjson.decode(ARGV[6])
for _, one in ipairs(operations.running) do set_running(scope_of(one[1]), one[2]) end
for _, one in ipairs(operations.corrections) do correct(scope_of(one[1]), one[2], one[3]) end
local decisions = {}
for index, one in ipairs(operations.takes) do decisions[index] = take(one[1], one[2], one[3]) end
for number, scope in pairs(scopes) do save(KEYS[number], scope) end
return #decisions == 0 and '[]' or cjson.encode(decisions)
