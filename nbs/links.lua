-- In the Markdown copies of the pages a link to a notebook becomes a link to the copy of its page,
-- named as nbdev names it: 08_data.ipynb#audit becomes data.html.md#audit.
function Link(link)
  local folder, name, anchor = link.target:match('^(.-)([^/#]+)%.ipynb(#?.*)$')
  if not name or folder:match('^%a+:') then return nil end
  name = name:lower():gsub('^%d+%w*_', '')
  link.target = folder .. name .. '.html.md' .. anchor
  return link
end
