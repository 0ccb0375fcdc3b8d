-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- What is known of each engine, in memory that all workers share and that a reload keeps: whether it gets requests, how many it has, who waits.
local semaphore = require("ngx.semaphore")
local config = require("erni_gateway.config")

local M = {}

local waiting = {}  -- of this worker: engine -> semaphore

local function shared()
    return ngx.shared.gateway
end

-- Forget the requests of workers that died without saying so: what they held would be held for ever.
function M.bury()
    local dead = {}
    for _, pid in ipairs(shared():get_keys(0)) do
        local number = string.match(pid, "^worker:(%d+)$")
        if number then
            local file = io.open("/proc/" .. number .. "/stat", "r")
            if file then
                file:close()
            else
                table.insert(dead, number)
            end
        end
    end
    for _, number in ipairs(dead) do
        for _, engine in ipairs(config.engines) do
            for _, what in ipairs({"busy:", "queue:"}) do
                local left = shared():get(what .. engine.name .. ":" .. number)
                if left and left > 0 then
                    shared():incr(what .. engine.name, -left, 0)
                end
                shared():delete(what .. engine.name .. ":" .. number)
            end
        end
        shared():delete("worker:" .. number)
    end
end

-- A host that was taken away while it was drained may come back one day, as a new one.
function M.forget_drained()
    for _, key in ipairs(shared():get_keys(0)) do
        local name = string.match(key, "^drained:(.+)$")
        if name and not config.by_name[name] then
            shared():delete(key)
        end
    end
end

function M.start()
    shared():set("worker:" .. ngx.worker.pid(), true)
    for _, engine in ipairs(config.engines) do
        waiting[engine.name] = semaphore.new(0)
    end
end

local function count(what, engine, by)
    shared():incr(what .. engine.name .. ":" .. ngx.worker.pid(), by, 0)
    return shared():incr(what .. engine.name, by, 0)
end

-- After it came back an engine gets one request at first, and all it can take when the time for its slow start is over.
local function limit_of(engine)
    local since = shared():get("since:" .. engine.name)
    if not since or config.limits.slow_start == 0 then
        return engine.max_connections
    end
    local part = (ngx.now() - since) / config.limits.slow_start
    return part >= 1 and engine.max_connections or math.max(1, math.floor(engine.max_connections * part))
end

-- Return false, true, or "unless_last": no new requests but those that no other engine could answer.
function M.drained(engine)
    return engine.drained or shared():get("drained:" .. engine.name) or false
end

-- An engine of which nothing is known yet is tried.
function M.usable(engine)
    return shared():get("up:" .. engine.name) ~= false and M.drained(engine) ~= true
end

function M.is_last_resort(engine)
    return M.drained(engine) == "unless_last"
end

function M.take(engine, from_queue)
    if not from_queue and (shared():get("queue:" .. engine.name) or 0) > 0 then
        return false
    end
    if count("busy:", engine, 1) > limit_of(engine) then
        count("busy:", engine, -1)
        return false
    end
    return true
end

function M.release(engine)
    count("busy:", engine, -1)
    local here = waiting[engine.name]
    if here and here:count() < 0 then
        here:post(1)
    end
end

function M.enqueue(engine)
    if count("queue:", engine, 1) > engine.max_queue then
        count("queue:", engine, -1)
        return false
    end
    return true
end

function M.dequeue(engine)
    count("queue:", engine, -1)
end

-- Wait until a request of this worker ends; one of a worker that a reload lets die is noticed a little later.
function M.wait(engine)
    waiting[engine.name]:wait(0.2)
end

local function note(engine, level, text)
    ngx.log(level, "engine ", engine.name, " ", text)
end

function M.take_out(engine, why)
    shared():set("why:" .. engine.name, why)
    if shared():get("up:" .. engine.name) ~= false then
        shared():set("up:" .. engine.name, false)
        note(engine, ngx.WARN, "is taken out: " .. why)
    end
end

function M.put_back(engine)
    shared():delete("why:" .. engine.name)
    shared():delete("fails:probe:" .. engine.name)
    shared():delete("fails:answer:" .. engine.name)
    local up = shared():get("up:" .. engine.name)
    if up ~= true then
        shared():set("up:" .. engine.name, true)
        if up == false then
            shared():set("since:" .. engine.name, ngx.now())
            note(engine, ngx.WARN, "is put back")
        end
    end
end

-- One failure of this kind ("probe" or "answer") in a row more; at the limit, or at once where there is no doubt, the engine is taken out.
function M.failed(engine, kind, why, certain)
    local fails = shared():incr("fails:" .. kind .. ":" .. engine.name, 1, 0)
    if certain or fails >= config.limits.max_failures then
        M.take_out(engine, why)
    else
        note(engine, ngx.NOTICE, "failed once more (" .. fails .. "): " .. why)
    end
end

-- It has said something to a client: no need to ask it for a token now.
function M.heard(engine)
    shared():set("heard:" .. engine.name, ngx.now())
    shared():delete("fails:answer:" .. engine.name)
end

function M.probed(engine)
    shared():delete("fails:probe:" .. engine.name)
end

function M.last_heard(engine)
    return shared():get("heard:" .. engine.name) or 0
end

function M.in_flight(engine)
    return shared():get("busy:" .. engine.name) or 0
end

function M.load(engine)
    return M.in_flight(engine) / engine.max_connections
end

-- What drains unless an engine is the last one neither weakens nor ends what somebody else has drained.
function M.drain(engine, on, unless_last)
    local key = "drained:" .. engine.name
    if unless_last and shared():get(key) == true then
        return
    end
    if on then
        shared():set(key, unless_last and "unless_last" or true)
    else
        shared():delete(key)
    end
    note(engine, ngx.WARN, on and (unless_last and "is drained, unless it is the last" or "is drained") or "is drained no more")
end

function M.is_up(engine)
    return shared():get("up:" .. engine.name) ~= false
end

function M.state(engine)
    local up = M.is_up(engine)
    return {
        name = engine.name, host = engine.host, service = engine.service, up = up, drained = M.drained(engine) ~= false,
        unless_last = M.is_last_resort(engine), why = shared():get("why:" .. engine.name),
        checked = shared():get("up:" .. engine.name) ~= nil, in_flight = M.in_flight(engine), queued = shared():get("queue:" .. engine.name) or 0,
        limit = limit_of(engine),
    }
end

return M
