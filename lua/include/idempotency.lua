-- What an idempotency key says of a request that carries it: nil when it may go on, else the answer. `claim` is the
-- flow that claimed the key before, or nothing where one script is the whole request.
local function key_verdict(key_record, fingerprint, claim)
  if not key_record then
    return nil
  end
  local found = redis.call('HMGET', key_record, 'fingerprint', 'result', 'place', 'claim')
  if not found[1] then
    return nil
  end
  if found[1] ~= fingerprint then
    return {'key_reused'}
  end
  if found[2] then
    return {'replayed', found[3], found[2]}
  end
  if found[4] ~= claim then
    return {'key_in_progress'}
  end
  return nil
end

-- Keep the result of the request beside its key, for a day. The event holds it too.
local function spend_key(key_record, fingerprint, place, result)
  if key_record then
    redis.call('HSET', key_record, 'fingerprint', fingerprint, 'place', place, 'result', result)
    redis.call('HDEL', key_record, 'claim', 'until')
    redis.call('PEXPIRE', key_record, 86400000)
  end
end
