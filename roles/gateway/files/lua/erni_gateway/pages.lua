-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- What the gateway says of itself: the models, what is up, and on the loopback port the metrics and the switch that drains an engine.
local cjson = require("cjson.safe")
local answer = require("erni_gateway.answer")
local config = require("erni_gateway.config")
local engines = require("erni_gateway.engines")
local metrics = require("erni_gateway.metrics")

local M = {}

local function model_of(name)
    local owner = config.aliases[name] and "alias" or config.by_name[config.routes[name][1].engine].service
    return {id = name, object = "model", created = 0, owned_by = owner}
end

function M.models()
    local wanted = string.match(ngx.var.uri, "^/v1/models/(.+)$")
    if wanted then
        if not config.routes[wanted] then
            return answer.refuse({api = "openai"}, 404, "unknown_model", "This model is not known. GET /v1/models lists those that are.")
        end
        return answer.json(200, model_of(wanted))
    end
    local names = {}
    for name in pairs(config.routes) do
        table.insert(names, name)
    end
    table.sort(names)
    local data = setmetatable({}, cjson.array_mt)
    for place, name in ipairs(names) do
        data[place] = model_of(name)
    end
    return answer.json(200, {object = "list", data = data})
end

local function reachable(name)
    for _, target in ipairs(config.routes[name]) do
        if engines.usable(config.by_name[target.engine]) then
            return true
        end
    end
    return false
end

-- Well while every alias has an engine.
function M.health()
    local found, ok = {engines = {}, aliases = {}}, true
    for _, engine in ipairs(config.engines) do
        found.engines[engine.name] = engines.drained(engine) and "drained" or engines.is_up(engine) and "up" or "down"
    end
    for name in pairs(config.aliases) do
        found.aliases[name] = reachable(name)
        ok = ok and found.aliases[name]
    end
    found.ok = ok
    return answer.json(ok and 200 or 503, found)
end

function M.metrics()
    ngx.header["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
    ngx.print(metrics.text())
end

-- What is known of each, and the aliases and models that it answers to.
function M.engines()
    local found, by_name = setmetatable({}, cjson.array_mt), {}
    for place, engine in ipairs(config.engines) do
        found[place] = engines.state(engine)
        found[place].answers = setmetatable({}, cjson.array_mt)
        by_name[engine.name] = found[place]
    end
    for name, targets in pairs(config.routes) do
        for _, target in ipairs(targets) do
            table.insert(by_name[target.engine].answers, name)
        end
    end
    for _, state in ipairs(found) do
        table.sort(state.answers)
    end
    return answer.json(200, found)
end

function M.drain(on)
    local engine = config.by_name[string.match(ngx.var.uri, "([^/]+)$")]
    if ngx.var.request_method ~= "POST" then
        return answer.json(405, {error = "POST drains an engine, or puts it back."})
    end
    -- No command has one: it is a page in the browser of somebody who sits at this host.
    if ngx.var.http_origin then
        return answer.json(403, {error = "Not for pages of a browser."})
    end
    if not engine then
        return answer.json(404, {error = "No engine has this name. GET /engines lists them."})
    end
    engines.drain(engine, on, ngx.var.arg_unless_last == "1")
    return answer.json(200, engines.state(engine))
end

return M
