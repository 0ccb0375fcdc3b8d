-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- A request's way: who asks and for what, which engine gets it, which one next when that one fails before its first byte.
local answer = require("erni_gateway.answer")
local body = require("erni_gateway.body")
local config = require("erni_gateway.config")
local engines = require("erni_gateway.engines")
local keys = require("erni_gateway.keys")
local metrics = require("erni_gateway.metrics")

local M = {}

-- nginx lets a request be redirected inside ten times, and forgets ngx.ctx each time: so the states are here, by the request's id.
local MAX_TRIES = 7
local states = {}

-- What is handed to the engines; whatever changes a server, such as Ollama's pull and delete, is not.
local OPENAI = {["/chat/completions"] = true, ["/completions"] = true, ["/embeddings"] = true, ["/responses"] = true}
local OFFERED = {
    v1 = {POST = {}, GET = {}},
    vllm = {
        POST = {["/tokenize"] = true, ["/detokenize"] = true},
        GET = {["/health"] = true, ["/version"] = true, ["/v1/models"] = true},
    },
    ollama = {
        POST = {["/api/chat"] = true, ["/api/generate"] = true, ["/api/embed"] = true, ["/api/embeddings"] = true, ["/api/show"] = true},
        GET = {["/"] = true, ["/api/tags"] = true, ["/api/ps"] = true, ["/api/version"] = true, ["/v1/models"] = true},
    },
}
for _, offered in pairs(OFFERED) do
    for path in pairs(OPENAI) do
        offered.POST["/v1" .. path] = true
    end
end
-- Ollama streams unless it is told not to.
local STREAMS = {["/api/chat"] = true, ["/api/generate"] = true}

function M.state()
    return states[ngx.var.request_id]
end

local function new_state(api, path)
    local state = {api = string.find(path, "^/api/") and "ollama" or "openai", tried = {}, tries = 0}
    states[ngx.var.request_id] = state
    return state
end

local function authorize(state)
    if config.open then
        return
    end
    local key = keys.of_request()
    if not key then
        return answer.refuse(state, 401, "unauthorized", "This needs a key: Authorization: Bearer KEY.")
    end
    state.key = key.name
    local wait = keys.wait(key)
    if wait then
        return answer.refuse(
            state, 429, "rate_limit", "The key " .. key.name .. " may ask " .. key.requests_per_minute .. " times a minute.", wait)
    end
end

-- A GET that the gateway answers itself.
function M.guard()
    local state = new_state("v1", "/v1")
    if ngx.var.request_method ~= "GET" and ngx.var.request_method ~= "HEAD" then
        return answer.refuse(state, 405, "not_offered", "Only GET is offered here.")
    end
    return authorize(state)
end

local function read_body(state)
    ngx.req.read_body()
    local text = ngx.req.get_body_data()
    if not text then
        return answer.refuse(state, 400, "bad_request", "The request has no body; it takes a JSON object.")
    end
    local parsed, wrong = body.parse(text)
    if not parsed then
        return answer.refuse(state, 400, "bad_request", wrong)
    end
    state.body = parsed
    return parsed
end

-- The engines that may answer, each with the name it has for the model; of those with the same rank the least busy first.
local function candidates(api, parsed)
    if api == "v1" then
        return config.routes[parsed.model]
    end
    local found, all = {}, {}
    for _, engine in ipairs(config.of_service[api] or {}) do
        local one = {engine = engine.name, model = parsed and parsed.model, rank = 1}
        table.insert(all, one)
        if parsed and engine.known[parsed.model] then
            table.insert(found, one)
        end
    end
    return #found > 0 and found or all
end

local function in_order(targets)
    local ordered = {}
    for place, target in ipairs(targets) do
        local engine = config.by_name[target.engine]
        table.insert(ordered, {engine = engine, model = target.model, rank = target.rank, place = place, load = engines.load(engine)})
    end
    table.sort(ordered, function(a, b)
        if a.rank ~= b.rank then
            return a.rank < b.rank
        end
        if a.load ~= b.load then
            return a.load < b.load
        end
        return a.place < b.place
    end)
    return ordered
end

-- The engines that may be taken now, and how many more there would be without them.
local function usable(state)
    local left, last_resort = {}, {}
    for _, target in ipairs(in_order(state.targets)) do
        if not state.tried[target.engine.name] and engines.usable(target.engine) then
            table.insert(engines.is_last_resort(target.engine) and last_resort or left, target)
        end
    end
    if #left == 0 then
        return last_resort, 0
    end
    return left, #last_resort
end

local function take_free(state, from_queue)
    local left, more = usable(state)
    for _, target in ipairs(left) do
        -- What only asks for a list does not wait behind what generates.
        if state.light or engines.take(target.engine, target.engine == from_queue) then
            state.holds = not state.light
            return target, #left + more
        end
    end
    return nil, #left + more
end

-- Wait in the queue of the first engine that has room in it, and take whichever becomes free.
local function wait_for_one(state)
    for _, target in ipairs((usable(state))) do
        if engines.enqueue(target.engine) then
            state.queue = target.engine
            local deadline = ngx.now() + config.limits.queue_timeout
            local found, left
            repeat
                engines.wait(target.engine)
                found, left = take_free(state, target.engine)
            until found or left == 0 or ngx.now() >= deadline
            state.queue = nil
            engines.dequeue(target.engine)
            return found, left, not found and left > 0 and "queue_timeout" or nil
        end
    end
    return nil, 1, "queue_full"
end

local function no_engine(state, left, queue)
    local limits = config.limits
    if state.last_failure then
        local status = state.last_failure.status
        return answer.refuse(
            state, status, "engine_failed", "No engine could answer: " .. state.last_failure.why .. ".", status == 503 and limits.retry_after or nil)
    end
    if queue == "queue_timeout" then
        return answer.refuse(
            state, 429, queue, "All engines were busy for " .. limits.queue_timeout .. " s. Ask again later.", limits.retry_after)
    end
    if left > 0 then
        return answer.refuse(state, 429, queue, "All engines are busy, and their queues are full. Ask again later.", limits.retry_after)
    end
    return answer.refuse(state, 503, "no_engine", "No engine that could answer this is up.", limits.retry_after)
end

-- Choose an engine and hand the request to it, or say why there is none.
local function hand_over(state)
    if state.tries >= MAX_TRIES then
        return no_engine(state, 0)
    end
    local target, left = take_free(state)
    local queue
    if not target and left > 0 then
        target, left, queue = wait_for_one(state)
    end
    if not target then
        return no_engine(state, left, queue)
    end
    state.tries = state.tries + 1
    state.engine, state.tried[target.engine.name] = target.engine, true
    state.ready = true
    if state.body then
        ngx.req.set_body_data(body.with_model(state.body, target.model))
    end
    ngx.var.gateway_upstream = target.engine.upstream
    ngx.var.gateway_path = state.path
    ngx.var.gateway_authorization = target.engine.authorization
    -- The last one's own error is the answer; those of the others are only a reason to go on.
    state.last = left == 1
    return state.last
end

local function location_of(state)
    return (state.stream and "@stream" or "@plain") .. (state.last and "_last" or "")
end

-- The first phase of a request for an engine.
function M.enter(api)
    local path = api == "v1" and ngx.var.uri or string.sub(ngx.var.uri, #api + 2)
    local state = new_state(api, path)
    state.path = path
    authorize(state)
    local method = ngx.var.request_method
    local offered = OFFERED[api][method == "HEAD" and "GET" or method]
    if not offered or not offered[path] then
        local elsewhere = OFFERED[api].GET[path] or OFFERED[api].POST[path]
        local status = elsewhere and 405 or 404
        return answer.refuse(state, status, "not_offered", method .. " " .. path .. " is not offered here.")
    end
    local parsed
    if method == "POST" then
        parsed = read_body(state)
        state.stream = parsed.stream == true or parsed.stream == nil and STREAMS[path] or false
    else
        state.light = true
    end
    state.targets = candidates(api, parsed)
    if not state.targets then
        return answer.refuse(
            state, 404, "unknown_model", 'The model "' .. string.sub(parsed.model, 1, 100) .. '" is not known. GET /v1/models lists those that are.')
    end
    state.model = parsed and (api ~= "v1" or config.aliases[parsed.model]) and parsed.model or nil
    if #state.targets == 0 then
        return answer.refuse(state, 503, "no_engine", "The gateway has no engine of this kind.")
    end
    hand_over(state)
    return ngx.exec(location_of(state))
end

local function let_go(state)
    if state.holds then
        state.holds = false
        engines.release(state.engine)
    end
    if state.queue then
        engines.dequeue(state.queue)
        state.queue = nil
    end
end
M.let_go = let_go

local function last_of(list)
    return list and string.match(list, "([^%s,:]+)%s*$")
end

-- Why the attempt before failed. No connection leaves no doubt; an engine that is full or does not know what to do may be well.
local function note_failure(state)
    local status = tonumber(last_of(ngx.var.upstream_status)) or 502
    local connected = last_of(ngx.var.upstream_connect_time) ~= "-"
    local name = state.engine.name
    local why
    if not connected then
        why = name .. (status == 504 and " did not accept the connection in time" or " accepts no connection")
    elseif status == 504 then
        why = name .. " said nothing in time"
    elseif last_of(ngx.var.upstream_header_time) == "-" then
        why = name .. " closed the connection without an answer"
    else
        why = name .. " answered " .. status
    end
    state.last_failure = {status = status, why = why}
    engines.failed(state.engine, "answer", why, not connected)
    let_go(state)
    ngx.log(ngx.NOTICE, "attempt ", state.tries, " failed: ", why)
end

-- The access phase of an attempt. It is entered by enter(), or by nginx after the attempt before has failed.
function M.attempt(here)
    local state = M.state()
    if not state.ready then
        note_failure(state)
        hand_over(state)
        metrics.retry()
        if location_of(state) ~= here then
            return ngx.exec(location_of(state))
        end
    end
    state.ready = false
    ngx.ctx.state = state
end

function M.forget()
    states[ngx.var.request_id] = nil
end

-- nginx's own refusals, said in JSON.
local OWN = {
    [400] = {"bad_request", "This is not a request that can be understood."},
    [404] = {"not_offered", "There is nothing here."},
    [405] = {"not_offered", "This method is not offered here."},
    [408] = {"too_slow", "The request did not come in time."},
    [413] = {"too_large", "The request's body is too large."},
    [414] = {"too_large", "The request's address is too long."},
    [494] = {"too_large", "The request's headers are too large."},
}

function M.own_error()
    local status = ngx.status
    local said = OWN[status] or OWN[400]
    local state = M.state() or new_state("v1", ngx.var.uri or "/")
    return answer.refuse(state, OWN[status] and status ~= 494 and status or 400, said[1], said[2])
end

return M
