# Reads the part of NoCloud's YAML that this guest acts on, in block style as people and cloud-init's own examples write it:
#   local-hostname, hostname, instance-id: "key value" lines;  public-keys, ssh_authorized_keys (at the top or below
#   users), runcmd: lists of plain or quoted strings;  ssh_keys: ed25519_private as a block scalar.
# Writes into the directory OUT: hostname, instance-id, keys, runcmd, host_key.
function plain(s) {
	sub(/[ \t\r]+$/, "", s)
	if (s ~ /^".*"$/ || s ~ /^'.*'$/) s = substr(s, 2, length(s) - 2)
	return s
}
{
	sub(/\r$/, "")
	match($0, /^ */)
	indent = RLENGTH
	text = substr($0, indent + 1)
}
block {
	if (text == "" || indent > block_indent) {
		print text >(OUT "/host_key")
		next
	}
	block = 0
}
text == "" || text ~ /^#/ { next }
text ~ /^- / || text == "-" {
	item = plain(substr(text, 3))
	if (list == "keys" && item ~ /^(ssh|ecdsa|sk)-/) { print item >>(OUT "/keys"); next }
	if (list == "runcmd" && item != "") { print item >>(OUT "/runcmd"); next }
	text = substr(text, 3)
	list = ""
}
{
	at = index(text, ":")
	if (at == 0) next
	key = substr(text, 1, at - 1)
	value = plain(substr(text, at + 1))
	sub(/^[ \t]+/, "", value)
	value = plain(value)
	list = ""
	if (key == "local-hostname" || (key == "hostname" && indent == 0)) print value >(OUT "/hostname")
	else if (key == "instance-id") print value >(OUT "/instance-id")
	else if (key == "public-keys" || key == "ssh_authorized_keys") list = "keys"
	else if (key == "runcmd" && indent == 0) list = "runcmd"
	else if (key == "ed25519_private" && value ~ /^\|/) { block = 1; block_indent = indent }
}
