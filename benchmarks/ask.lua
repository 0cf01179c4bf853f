-- What wrk sends, and what it reports: QUESTION, in NUMBER conversations by turns.
local number, question = tonumber(os.getenv("NUMBER")), os.getenv("QUESTION")
local requests, position = {}, 0

function init()
  local headers = { ["Content-Type"] = "application/json" }
  for each = 1, number do
    local body = string.format('{"question":"%s","session_id":"bench-%d"}', question, each)
    requests[each] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  position = position % number + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"microseconds":%d,"p50":%d,"p95":%d,"p99":%d,"max":%d,"status":%d,"socket":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    latency.max, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
