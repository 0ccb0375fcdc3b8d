-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- What Ansible decided: engines, routes, keys, limits. Read once by the master, which may read files that the workers may not.
local cjson = require("cjson.safe")

local M = {}

function M.load(path)
    local file, problem = io.open(path, "r")
    if not file then
        error("the gateway's settings cannot be read: " .. problem, 0)
    end
    local text = file:read("*a")
    file:close()
    local config, wrong = cjson.decode(text)
    if not config then
        error("the gateway's settings in " .. path .. " are no JSON: " .. tostring(wrong), 0)
    end
    M.limits = config.limits
    M.engines = config.engines
    M.routes = config.routes
    M.aliases = config.aliases
    M.keys = config.keys
    M.open = next(config.keys) == nil
    M.by_name = {}
    M.of_service = {}
    for _, engine in ipairs(config.engines) do
        M.by_name[engine.name] = engine
        M.of_service[engine.service] = M.of_service[engine.service] or {}
        table.insert(M.of_service[engine.service], engine)
    end
end

return M
