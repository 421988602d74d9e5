-- A user's coupon as it stands in the hash: its fields in this order, joined by commas, which no id contains.
local COUPON_FIELDS = {
  'state', 'campaign', 'number', 'kind', 'value', 'minimum_order', 'maximum_discount',
  'issued_at', 'valid_from', 'valid_until', 'order', 'used_at', 'seq',
}

local function unpack_coupon(packed)
  local coupon, index = {}, 0
  for text in string.gmatch(packed .. ',', '([^,]*),') do
    index = index + 1
    coupon[COUPON_FIELDS[index]] = text
  end
  return coupon
end

local function pack_coupon(coupon)
  local texts = {}
  for index, field in ipairs(COUPON_FIELDS) do
    texts[index] = coupon[field]
  end
  return table.concat(texts, ',')
end

-- What a coupon is from its issue on, for ever: all that stands between `campaign` and `order`. Nothing is calculated
-- with it here, so its form is looked at in one piece, a seventh of what `whole` costs for each number by itself; no
-- number of it may have more digits than 2^53.
local function read_terms(terms)
  local number, kind, value, minimum_order, maximum_discount, issued_at, valid_from, valid_until =
    string.match(terms, '^([1-9]%d*),(%l+),([1-9]%d*),(%d*),(%d*),(%d+),(%d+),(%d+)$')
  if not number or math.max(#number, #value, #minimum_order, #maximum_discount, #issued_at, #valid_from,
    #valid_until) > 16 then
    error('these are no terms of a coupon: ' .. quoted(terms, 200))
  end
  return number, kind, value, minimum_order, maximum_discount, issued_at, valid_from, valid_until
end

-- A coupon that nobody has used yet, packed.
local function granted_coupon(campaign, terms, place)
  return 'free,' .. campaign .. ',' .. terms .. ',,,' .. place
end

-- Write a coupon's new state: `free` (an order may take it), `taken` (by `order`) or `used`.
local function set_coupon(coupons, id, coupon, state, order, used_at, place)
  coupon.state, coupon.order, coupon.used_at, coupon.seq = state, order, used_at, place
  redis.call('HSET', coupons, id, pack_coupon(coupon))
end
