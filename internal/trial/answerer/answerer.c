/* answerer ADDRESS PORT: sends back each datagram that comes to the address, which need not be here yet. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
	struct sockaddr_in here = {.sin_family = AF_INET}, from;
	int s = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
	char b[64];

	if (argc != 3 || inet_pton(AF_INET, argv[1], &here.sin_addr) != 1)
		return 2;
	here.sin_port = htons(atoi(argv[2]));
	if (setsockopt(s, IPPROTO_IP, IP_FREEBIND, &on, sizeof on) || bind(s, (struct sockaddr *)&here, sizeof here))
		return 1;
	for (;;) {
		socklen_t len = sizeof from;
		ssize_t n = recvfrom(s, b, sizeof b, 0, (struct sockaddr *)&from, &len);
		if (n >= 0)
			sendto(s, b, n, 0, (struct sockaddr *)&from, len);
	}
}
