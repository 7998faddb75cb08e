package link

import "fmt"

// Rekey replaces the cluster's keys: all are accepted from now on, and the first seals. Nothing is lost if
// every receiver accepts that one already. Identity must have the same keys.
func (l *Links) Rekey(keys [][]byte) error {
	l.opening.Lock()
	err := l.opener.Rekey(keys)
	l.opening.Unlock()
	if err == nil {
		l.sending.Lock()
		err = l.config.Sealer.Rekey(keys[0])
		l.sending.Unlock()
	}
	if err != nil {
		return fmt.Errorf("change the keys of the links: %w", err)
	}
	return nil
}
