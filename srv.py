import http.server,json,sys,threading,subprocess
def serve(port,commit):
    class H(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            b=json.dumps({"version":"0.3.0","commit":commit,"schema":{"binary":3,"file":3,"file_oldest_binary":3},"ledger":{"id":"01a20a20-1c40-7301-a600-0e7c7e4fb938","sequence":20},"started_at":"2026-11-23T20:00:00Z","uptime_seconds":100,"backups":[],"restored":None}).encode() if self.path=="/version" else b"ready"
            self.send_response(200); self.send_header("Content-Length",str(len(b))); self.end_headers(); self.wfile.write(b)
        def log_message(self,*a): pass
    http.server.ThreadingHTTPServer(("127.0.0.1",port),H).serve_forever()
for p in (47001,47002,47003): threading.Thread(target=serve,args=(p,sys.argv[1])).start()
